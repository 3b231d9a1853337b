//! The schema that a table must have for its next rows.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Decoder, UNTOLD_ROW, is_untold};
use crate::decode::json::Cursor;
use crate::decode::key::{KeyColumn, KeyPlan};
use crate::decode::rows::conflict;
use crate::decode::types::holds;
use crate::decode::writer::{Field, Kind, Writer};
use crate::decode::{Evolution, Options, Reject, Row, WriterId, evolve, infer};
use crate::error::{Error, Result};
use crate::schema::{Column, ColumnType, SOURCE_COLUMN, TableSchema, is_metadata};

impl Decoder {
    /// The schema that the table must have to take `rows`: the current one when they bring nothing new, else the
    /// current one with columns added, widened or no longer NOT NULL, or that of a new table. It loses columns only as
    /// [`Self::with_drops`] says and never becomes narrower, whatever the order in which writers come. Fails ([`crate::error::Kind::Data`]) when a column's
    /// type has changed so that no column may take its values ([`crate::decode::Evolution`]).
    pub fn table_schema(&mut self, rows: &[Row<'_>]) -> Result<Arc<TableSchema>> {
        if self.torn {
            return Err(Error::data(
                "the table was made with a key while records without one were read for it, or the reverse",
            )
            .hint("restart: what is not in the table yet is read again"));
        }
        if let Some(renames) = &mut self.fate.renames {
            renames.waits = false;
        }
        let mut wanted = Wanted::new(self.schema.as_deref(), self.key.as_ref());
        let (mut last, mut told) = (None, self.fate.drops.is_some() && !rows.is_empty());
        for row in rows {
            if is_untold(row.writer.number()) {
                told = false;
                self.infer(row, &mut wanted);
            } else if last != Some(row.writer) && !self.covered.contains(&row.writer) {
                self.cover(row.writer, &mut wanted)?;
            }
            last = Some(row.writer);
        }
        if wanted.unexplained
            && let Some(renames) = self.fate.renames.as_mut().filter(|renames| !renames.given_up)
        {
            renames.waits = true;
            return Err(Error::unavailable(
                "the schema-change topic does not tell yet whether columns were renamed",
            ));
        }
        let Some(schema) = &self.schema else {
            let schema = wanted.create(self.key.as_ref(), self.keyed == Some(false))?;
            return Ok(Arc::new(self.with_place(schema)));
        };
        wanted.take_key(self.key.as_ref())?;
        if self.is_tracing() && !schema.is_traced() {
            wanted.add(SOURCE_COLUMN, ColumnType::String);
        }
        let present = told.then(|| self.present(rows, &wanted)).transpose()?;
        self.settle_drops(rows, present.as_ref(), &mut wanted);
        if wanted.columns == schema.columns() {
            self.covered.extend(wanted.writers);
            return Ok(Arc::clone(schema));
        }
        let evolved = schema.evolved(wanted.columns);
        check_names(&evolved)?;
        Ok(Arc::new(evolved))
    }

    /// The schema of a new table, with a place for the changes' places if they are asked for.
    fn with_place(&self, schema: TableSchema) -> TableSchema {
        let schema = schema.with_partitions(self.trace.told());
        match self.is_tracing() {
            true => schema.with_added(vec![Column::new(SOURCE_COLUMN, ColumnType::String, true)]),
            false => schema,
        }
    }

    /// Adds what a writer has and the table has not.
    fn cover(&self, id: WriterId, wanted: &mut Wanted) -> Result<()> {
        if wanted.writers.contains(&id) {
            return Ok(());
        }
        let writer = self.writer(id)?;
        if writer.kind == Kind::Event {
            self.cover_event(writer, wanted)?;
        }
        let fields = || writer.fields.iter().filter(|field| !field.added);
        let names: Vec<&str> = fields().map(|field| field.name.as_str()).collect();
        self.settle_renames(&names, wanted);
        for field in fields() {
            if is_metadata(&field.name) {
                return Err(reserved(&field.name));
            }
            let told = self.options.told(&field.name, &field.mapped);
            let told = told.map_err(|reject| {
                Error::invalid(reject.message).hint("change the declared type, or leave it out")
            })?;
            let ty = told.in_column(wanted.column_for(writer, &field.name));
            wanted.take(writer, &field.name, ty, self.options.evolution)?;
        }
        self.relax(writer, wanted);
        wanted.writers.insert(id);
        Ok(())
    }

    /// Adds what every event of an outbox has.
    fn cover_event(&self, writer: &Writer, wanted: &mut Wanted) -> Result<()> {
        let Some(outbox) = &self.options.outbox else { return Ok(()) };
        if let Some(field) = writer.fields.iter().find(|field| outbox.takes(&field.name)) {
            let name = &field.name;
            return Err(Error::data(format!(
                "events of the outbox have a field named {name}, which is the name of a column of their own"
            ))
            .hint("rename it, do not expand the payload, or leave the header out of option outbox-headers"));
        }
        for name in outbox.columns() {
            if wanted.columns.iter().all(|column| column.name != *name) {
                wanted.add(name, ColumnType::String);
            }
        }
        Ok(())
    }

    /// The places of the columns that a writer of one of the rows has.
    fn present(&self, rows: &[Row<'_>], wanted: &Wanted) -> Result<HashSet<usize>> {
        let writers: HashSet<WriterId> = rows.iter().map(|row| row.writer).collect();
        let mut present = HashSet::new();
        for id in writers {
            let writer = self.writer(id)?;
            let names = writer.fields.iter().filter(|field| !field.added);
            let names: Vec<&str> =
                names.map(|field| evolve::name_now(&wanted.columns, writer, &field.name)).collect();
            let has =
                |column: &Column| names.iter().any(|name| evolve::holds_values_of(column, name));
            let places = wanted.columns.iter().enumerate().filter(|(_, column)| has(column));
            present.extend(places.map(|(place, _)| place));
        }
        Ok(present)
    }

    /// Columns become optional that the writer does not have any more, or has nulls in.
    fn relax(&self, writer: &Writer, wanted: &mut Wanted) {
        let places = wanted.required();
        if places.is_empty() {
            return;
        }
        let filled = |field: &Field| {
            let told = self.options.told(&field.name, &field.mapped).ok()?;
            let ty = told.in_column(wanted.column_for(writer, &field.name));
            let wants = (field.name.as_str(), &ty);
            let home = evolve::home(&wanted.columns, writer, wants, self.options.evolution);
            home.filter(|_| !field.optional)
        };
        let filled: HashSet<usize> = writer.fields.iter().filter_map(filled).collect();
        wanted.relax(places.into_iter().filter(|place| !filled.contains(place)));
    }

    /// Adds columns that a row without a schema has and the table has not. A row that cannot be read is rejected
    /// when its columns are decoded.
    fn infer(&self, row: &Row<'_>, wanted: &mut Wanted) {
        let columns = self.schema.as_deref().map(TableSchema::columns).unwrap_or_default();
        if wanted.writers.insert(row.writer) && self.options.evolution.widen {
            wanted.declare(&self.options);
        }
        let required = wanted.required();
        let read = || -> Result<_, Reject> {
            let mut found: Vec<(String, ColumnType)> = Vec::new();
            let (mut filled, mut seen) = (Vec::new(), Vec::new());
            let mut cursor = Cursor::new(row.bytes, 0);
            let mut more = cursor.open_object()?;
            let mut expected = 0;
            while more {
                let name = cursor.name()?;
                let known = |column: &Column| name.is(&column.name);
                let place = match columns.get(expected).is_some_and(known) {
                    true => Some(expected),
                    false => columns.iter().position(known),
                };
                if let Some(place) = place {
                    expected = place + 1;
                    seen.push(place);
                    if required.contains(&place) && !cursor.clone().null()? {
                        filled.push(place);
                    }
                    cursor.skip()?;
                } else {
                    let name = cursor.text(name)?.into_owned();
                    found.extend(self.infer_column(name, &mut cursor)?);
                }
                more = cursor.next_field()?;
            }
            Ok((found, seen, filled))
        };
        let Ok((mut found, seen, filled)) = read() else { return };
        if row.writer.number() == UNTOLD_ROW {
            found.retain(|(name, _)| self.added.of(name).is_none());
        }
        let known = seen.iter().filter_map(|at| Some(columns.get(*at)?.name.as_str()));
        let names: Vec<&str> = known.chain(found.iter().map(|(name, _)| name.as_str())).collect();
        if !found.is_empty() {
            self.settle_renames(&names, wanted);
        }
        let has = |name: &str| names.contains(&name);
        for (name, ty) in &found {
            if evolve::present_name(&wanted.columns, has, name) == name {
                wanted.infer(name, ty.clone());
            }
        }
        wanted.relax(required.into_iter().filter(|place| !filled.contains(place)));
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

/// The columns that a table must have: those it has, as they have to become, then new ones, without an id yet.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) columns: Vec<Column>,
    pub(super) key: Vec<String>,
    writers: HashSet<WriterId>,
    /// Columns are new, others gone, and nobody knows yet whether they are the same.
    pub(super) unexplained: bool,
}

impl Wanted {
    /// The column that a writer calls `name`.
    fn column_for(&self, writer: &Writer, name: &str) -> Option<&Column> {
        let name = evolve::name_now(&self.columns, writer, name);
        self.columns.iter().find(|column| column.name == name)
    }

    fn new(schema: Option<&TableSchema>, key: Option<&KeyPlan>) -> Self {
        let columns = schema.map(TableSchema::columns).unwrap_or_default().to_vec();
        let key = key.map(|key| key.columns.iter().map(|column| column.name.clone()).collect());
        Self { columns, key: key.unwrap_or_default(), ..Self::default() }
    }

    /// Makes a place for values of type `ty` of the writer's column `name`.
    fn take(
        &mut self,
        writer: &Writer,
        name: &str,
        ty: ColumnType,
        evolution: Evolution,
    ) -> Result<()> {
        if evolve::home(&self.columns, writer, (name, &ty), evolution).is_some() {
            return Ok(());
        }
        let name = evolve::name_now(&self.columns, writer, name).to_owned();
        let name = name.as_str();
        let Some(column) = self.columns.iter_mut().find(|column| column.name == name) else {
            self.add(name, ty);
            return Ok(());
        };
        let new = column.id == 0;
        let wide = column.ty.widened(&ty).filter(|_| new || evolution.widen);
        let wide = wide.or_else(|| (new && holds(&ty, &column.ty)).then(|| ty.clone()));
        if let Some(wide) = wide {
            column.ty = wide;
            return Ok(());
        }
        let clash = conflict(name, &column.ty, &ty);
        let variant = evolve::variant(writer, name, &ty, evolution)
            .filter(|variant| self.columns.iter().all(|column| column.name != *variant));
        match variant.filter(|_| !self.key.iter().any(|key| key == name)) {
            Some(variant) => self.add(&variant, ty),
            None => return Err(clash),
        }
        Ok(())
    }

    /// Widens columns to the types that they are declared with.
    fn declare(&mut self, options: &Options) {
        for column in &mut self.columns {
            let declared = options.declared(&column.name);
            if let Some(wide) = declared.and_then(|declared| column.ty.widened(&declared.ty)) {
                column.ty = wide;
            }
        }
    }

    /// Widens the key's columns to what keys were made with. Fails when keys of another type came.
    fn take_key(&mut self, key: Option<&KeyPlan>) -> Result<()> {
        let Some(key) = key else { return Ok(()) };
        if let Some((name, table, writer)) = &key.conflict {
            return Err(conflict(name, table, writer));
        }
        for KeyColumn { name, ty, .. } in &key.columns {
            let column = self.columns.iter_mut().find(|column| column.name == *name);
            if let Some(column) = column
                && let Some(wide) = column.ty.widened(ty)
            {
                column.ty = wide;
            }
        }
        Ok(())
    }

    /// The places of the source's columns that are NOT NULL but are not the key's.
    fn required(&self) -> Vec<usize> {
        let required = |column: &Column| {
            !column.nullable && !is_metadata(&column.name) && !self.key.contains(&column.name)
        };
        let columns = self.columns.iter().enumerate();
        columns.filter(|(_, column)| required(column)).map(|(place, _)| place).collect()
    }

    fn relax(&mut self, places: impl Iterator<Item = usize>) {
        for place in places {
            if let Some(column) = self.columns.get_mut(place) {
                column.nullable = true;
            }
        }
    }

    fn add(&mut self, name: &str, ty: ColumnType) {
        self.columns.push(Column::new(name, ty, true));
    }

    fn infer(&mut self, name: &str, ty: ColumnType) {
        if is_metadata(name) {
            return;
        }
        match self.columns.iter_mut().find(|column| column.name == name) {
            // The table's types are settled.
            Some(column) if column.id != 0 => {}
            Some(column) => {
                if let Some(merged) = infer::merge(Some(column.ty.clone()), Some(ty)) {
                    column.ty = merged;
                }
            }
            None => self.add(name, ty),
        }
    }

    /// The schema of a new table: the key's columns have the types its keys were made with.
    fn create(mut self, key: Option<&KeyPlan>, keyless: bool) -> Result<TableSchema> {
        let key = match key {
            _ if keyless => &[][..],
            Some(KeyPlan { conflict: Some((name, first, other)), .. }) => {
                return Err(conflict(name, first, other));
            }
            Some(key) => &key.columns,
            None => return Err(Error::internal("no key was scanned before the first rows")),
        };
        for (place, KeyColumn { name, ty, .. }) in key.iter().enumerate() {
            match self.columns.iter_mut().find(|column| column.name == *name) {
                Some(column) if holds(ty, &column.ty) => {
                    *column = Column::new(name, ty.clone(), false);
                }
                Some(column) => return Err(conflict(name, ty, &column.ty)),
                None => self.columns.insert(place, Column::new(name, ty.clone(), false)),
            }
        }
        let names = key.iter().map(|column| column.name.clone()).collect();
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
