//! The schema that a table must have for its next rows.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Decoder, UNTOLD_ROW, is_untold};
use crate::decode::infer;
use crate::decode::json::Cursor;
use crate::decode::key::{KeyColumn, KeyPlan};
use crate::decode::rows::conflict;
use crate::decode::types::holds;
use crate::decode::{Reject, Row, WriterId};
use crate::error::{Error, Result};
use crate::schema::{Column, ColumnType, TableSchema, is_metadata};

impl Decoder {
    /// The schema that the table must have to take `rows`: the current one when they bring nothing new, else the
    /// current one with columns added, or that of a new table. Fails ([`crate::error::Kind::Data`]) when a column's
    /// type has changed so that the table's does not hold it.
    pub fn table_schema(&mut self, rows: &[Row<'_>]) -> Result<Arc<TableSchema>> {
        let mut wanted = Wanted::default();
        let mut last = None;
        for row in rows {
            if is_untold(row.writer.number()) {
                self.infer(row, &mut wanted);
            } else if last != Some(row.writer) && !self.covered.contains(&row.writer) {
                self.cover(row.writer, &mut wanted)?;
            }
            last = Some(row.writer);
        }
        let Some(schema) = &self.schema else {
            return wanted.create(self.key.as_ref()).map(Arc::new);
        };
        if wanted.columns.is_empty() {
            self.covered.extend(wanted.writers);
            return Ok(Arc::clone(schema));
        }
        let widened = schema.with_added(wanted.columns);
        check_names(&widened)?;
        Ok(Arc::new(widened))
    }

    /// Adds what a writer has and the table has not.
    fn cover(&self, id: WriterId, wanted: &mut Wanted) -> Result<()> {
        if wanted.writers.contains(&id) {
            return Ok(());
        }
        let writer = self.writer(id)?;
        for field in writer.fields.iter().filter(|field| !field.added) {
            let told = self.options.told(&field.name, &field.mapped);
            let told = told.map_err(|reject| {
                Error::invalid(reject.message).hint("change the declared type, or leave it out")
            })?;
            let table = self.schema.as_deref().and_then(|schema| schema.column(&field.name));
            let ty = told.in_column(table.or_else(|| wanted.column(&field.name)));
            match table {
                _ if is_metadata(&field.name) => return Err(reserved(&field.name)),
                Some(column) if holds(&column.ty, &ty) => {}
                Some(column) => return Err(conflict(&field.name, &column.ty, &ty)),
                None => wanted.widen(&field.name, ty)?,
            }
        }
        wanted.writers.insert(id);
        Ok(())
    }

    /// Adds columns that a row without a schema has and the table has not. A row that cannot be read is rejected
    /// when its columns are decoded.
    fn infer(&self, row: &Row<'_>, wanted: &mut Wanted) {
        let columns = self.schema.as_deref().map(TableSchema::columns).unwrap_or_default();
        let read = || -> Result<Vec<(String, ColumnType)>, Reject> {
            let mut found = Vec::new();
            let mut cursor = Cursor::new(row.bytes, 0);
            let mut more = cursor.open_object()?;
            let mut expected = 0;
            while more {
                let name = cursor.name()?;
                let known = |column: &Column| name.is(&column.name);
                if columns.get(expected).is_some_and(known) {
                    expected += 1;
                    cursor.skip()?;
                } else if let Some(place) = columns.iter().position(known) {
                    expected = place + 1;
                    cursor.skip()?;
                } else {
                    let name = cursor.text(name)?.into_owned();
                    found.extend(self.infer_column(name, &mut cursor)?);
                }
                more = cursor.next_field()?;
            }
            Ok(found)
        };
        let flattened = row.writer.number() == UNTOLD_ROW;
        for (name, ty) in read().unwrap_or_default() {
            if !flattened || self.added.of(&name).is_none() {
                wanted.infer(&name, ty);
            }
        }
    }

    fn infer_column(
        &self,
        name: String,
        cursor: &mut Cursor<'_>,
    ) -> Result<Option<(String, ColumnType)>, Reject> {
        if let Some(declared) = self.options.declared(&name) {
            cursor.skip()?;
            return Ok(Some((name, declared.ty)));
        }
        Ok(infer::value(cursor)?.map(|ty| (name, ty)))
    }
}

/// Columns that a table must get.
#[derive(Debug, Default)]
struct Wanted {
    columns: Vec<Column>,
    writers: HashSet<WriterId>,
}

impl Wanted {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Adds a column, or gives it the wider of two types when it was added already.
    fn widen(&mut self, name: &str, ty: ColumnType) -> Result<()> {
        match self.columns.iter_mut().find(|column| column.name == name) {
            Some(column) if holds(&column.ty, &ty) => {}
            Some(column) if holds(&ty, &column.ty) => column.ty = ty,
            Some(column) => return Err(conflict(name, &column.ty, &ty)),
            None => self.add(name, ty),
        }
        Ok(())
    }

    fn add(&mut self, name: &str, ty: ColumnType) {
        self.columns.push(Column::new(name, ty, true));
    }

    fn infer(&mut self, name: &str, ty: ColumnType) {
        if is_metadata(name) {
            return;
        }
        match self.columns.iter_mut().find(|column| column.name == name) {
            Some(column) => {
                if let Some(merged) = infer::merge(Some(column.ty.clone()), Some(ty)) {
                    column.ty = merged;
                }
            }
            None => self.add(name, ty),
        }
    }

    /// The schema of a new table: the key's columns have the types its keys were made with.
    fn create(mut self, key: Option<&KeyPlan>) -> Result<TableSchema> {
        let key = key.ok_or_else(|| Error::internal("no key was scanned before the first rows"))?;
        for (place, KeyColumn { name, ty, .. }) in key.columns.iter().enumerate() {
            match self.columns.iter_mut().find(|column| column.name == *name) {
                Some(column) if holds(ty, &column.ty) => {
                    *column = Column::new(name, ty.clone(), false);
                }
                Some(column) => return Err(conflict(name, ty, &column.ty)),
                None => self.columns.insert(place, Column::new(name, ty.clone(), false)),
            }
        }
        let names = key.columns.iter().map(|column| column.name.clone()).collect();
        let schema = TableSchema::create(self.columns, names);
        check_names(&schema)?;
        Ok(schema)
    }
}

/// Tables tell columns apart without regard to case.
fn check_names(schema: &TableSchema) -> Result<()> {
    let mut seen = HashSet::new();
    for column in schema.columns() {
        if !seen.insert(column.name.to_lowercase()) {
            return Err(Error::data(format!(
                "two columns of the source are named {} but for upper and lower case, which tables do not tell apart",
                column.name
            ))
            .hint("exclude or rename one of them in the connector"));
        }
    }
    Ok(())
}

fn reserved(name: &str) -> Error {
    Error::data(format!(
        "the source has a column named {name}, which is the name of a metadata column"
    ))
    .hint("exclude or rename it in the connector")
}
