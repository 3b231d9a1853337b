//! The decoder of one topic: both stages, and the schema that its rows need.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::envelope::{Envelope, Unwrapper, end};
use super::infer;
use super::json::Cursor;
use super::key::{KeyColumn, KeyPlan, scalar};
use super::placeholder::Placeholder;
use super::registry::Registry;
use super::rows::{Filler, Route, conflict, json_row};
use super::types::{Form, Mapped, holds};
use super::writer::{Kind, Writer};
use super::{
    Change, Columns, Operation, Options, Reject, Row, RowRef, ScanError, Scanned, SchemaId, Skip,
    WriterId,
};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::record::Record;
use crate::schema::{Column, ColumnType, TableSchema, is_metadata};

/// The header that the second half of a key change carries.
const OLD_KEY: &str = "__debezium.oldkey";

/// The number of the writer of JSON without a schema.
const UNTOLD: usize = 0;

/// Decodes the records of one topic, which feeds one table.
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    registry: Option<Arc<Registry>>,
    placeholder: Placeholder,
    schema: Option<Arc<TableSchema>>,
    /// Writers whose columns `schema` has.
    covered: HashSet<WriterId>,
    writers: Vec<Writer>,
    values: Unwrapper,
    key_writers: Vec<Writer>,
    keys: Unwrapper,
    key: Option<KeyPlan>,
    /// How each key writer writes the columns of `key`, as far as known.
    key_forms: Vec<Option<Vec<Form>>>,
}

impl Decoder {
    /// A decoder for a table with `schema`, or for one that does not exist yet.
    pub fn new(
        options: Options,
        registry: Option<Arc<Registry>>,
        schema: Option<Arc<TableSchema>>,
    ) -> Self {
        let mut decoder = Self {
            placeholder: Placeholder::new(&options.placeholder),
            options,
            registry,
            schema: None,
            covered: HashSet::new(),
            writers: vec![Writer::untold()],
            values: Unwrapper::default(),
            key_writers: vec![Writer::untold()],
            keys: Unwrapper::default(),
            key: None,
            key_forms: Vec::new(),
        };
        if let Some(schema) = schema {
            decoder.set_schema(schema);
        }
        decoder
    }

    /// The table's schema as committed: at the start, and after each commit that changes it.
    pub fn set_schema(&mut self, schema: Arc<TableSchema>) {
        self.key = KeyPlan::of_table(&schema, &self.options);
        self.key_forms.clear();
        self.covered.clear();
        self.schema = Some(schema);
    }

    /// The first stage: what the record is, and for a change its operation, key and where its row lies.
    pub fn scan(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        let Some(value) = record.value else { return self.tombstone(record) };
        let payload = {
            let writers = &mut self.writers;
            self.values.payload(value, |schema| Ok(learn(writers, Writer::of_value(schema)?)))?
        };
        let mut cursor = Cursor::new(value, payload.at);
        if cursor.null()? {
            end(cursor, payload)?;
            return self.tombstone(record);
        }
        let writer = payload.schema.unwrap_or(UNTOLD);
        let told = self.writers.get(writer).map_or(Kind::Untold, |writer| writer.kind);
        if let Kind::Skipped(skip) = told {
            return Ok(Scanned::Skipped(skip));
        }
        if told == Kind::Other || cursor.peek()? != b'{' {
            return Err(foreign().into());
        }
        let envelope = Envelope::read(&mut cursor)?;
        end(cursor, payload)?;
        match if told == Kind::Untold { envelope.kind() } else { told } {
            Kind::Skipped(skip) => Ok(Scanned::Skipped(skip)),
            Kind::Envelope => self.change(record, value, &envelope, writer),
            Kind::Untold | Kind::Other => Err(foreign().into()),
        }
    }

    /// Fetches the schema that a record needs, and keeps it.
    ///
    /// Fails with [`crate::error::Kind::Unavailable`] when the registry does not answer, with
    /// [`crate::error::Kind::Data`] when it answers that there is no such schema or the schema cannot be used.
    pub async fn fetch_schema(&mut self, id: SchemaId) -> Result<()> {
        let registry = self.registry.as_ref().ok_or_else(|| {
            Error::invalid(format!("a record was written with schema {id} of a registry"))
                .hint("give the registry's address")
        })?;
        registry.get(id).await?;
        Ok(())
    }

    fn tombstone(&mut self, record: &Record<'_>) -> Result<Scanned, ScanError> {
        let key = match record.key {
            Some(key) => self.record_key(key)?,
            None => None,
        };
        let Some(key) = key else { return Ok(Scanned::Skipped(Skip::KeylessTombstone)) };
        Ok(Scanned::Change(Change {
            operation: Operation::Delete,
            key,
            row: None,
            old_key: None,
            source_micros: None,
        }))
    }

    fn change(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        envelope: &Envelope,
        writer: usize,
    ) -> Result<Scanned, ScanError> {
        let operation = envelope.operation(value)?;
        let image = match operation {
            Operation::Message => return Ok(Scanned::Skipped(Skip::Message)),
            Operation::Truncate => return Err(truncate().into()),
            Operation::Delete => &envelope.before,
            Operation::Create | Operation::Read | Operation::Update => &envelope.after,
        };
        let row = match operation {
            Operation::Delete => None,
            _ => Some(row_ref(value, writer, image)?),
        };
        let key = match record.key {
            Some(key) => self.record_key(key)?,
            None => None,
        };
        let key = match key {
            Some(key) => key,
            None => self.image_key(value, writer, envelope, image)?,
        };
        let old_key = match operation {
            Operation::Create => self.old_key(record)?,
            _ => None,
        };
        let source_micros = envelope.source_micros;
        Ok(Scanned::Change(Change { operation, key, row, old_key, source_micros }))
    }

    /// The key that the change moved the row from. What is in the header is the connector's choice of converter; what
    /// cannot be read is as if it were not there.
    fn old_key(&mut self, record: &Record<'_>) -> Result<Option<Key>, ScanError> {
        let mut headers = record.headers();
        let Some((_, Some(value))) = headers.find(|(name, _)| *name == OLD_KEY) else {
            return Ok(None);
        };
        match self.record_key(value) {
            Ok(key) => Ok(key),
            Err(ScanError::NeedsSchema(id)) => Err(ScanError::NeedsSchema(id)),
            Err(ScanError::Reject(_)) => Ok(None),
        }
    }

    /// The key in a record's key; none when it is null.
    fn record_key(&mut self, bytes: &[u8]) -> Result<Option<Key>, ScanError> {
        let payload = {
            let writers = &mut self.key_writers;
            self.keys.payload(bytes, |schema| Ok(learn(writers, Writer::of_key(schema)?)))?
        };
        let mut cursor = Cursor::new(bytes, payload.at);
        if cursor.null()? {
            return Ok(None);
        }
        let writer = payload.schema.unwrap_or(UNTOLD);
        if self.key.is_none() {
            let fields = match payload.schema {
                Some(_) => self.told_key(writer)?,
                None => self.untold_key(cursor)?,
            };
            self.key = Some(KeyPlan::of_fields(fields)?);
        }
        let (plan, forms) = self.key_plan(writer)?;
        let key = plan.read_json(&mut cursor, forms)?;
        end(cursor, payload)?;
        Ok(Some(key))
    }

    /// The key's plan, and how a writer writes it.
    fn key_plan(&mut self, writer: usize) -> Result<(&mut KeyPlan, &[Form]), Reject> {
        let Self { key, key_forms, key_writers, .. } = self;
        let plan = key.as_mut().ok_or_else(no_key)?;
        if key_forms.len() <= writer {
            key_forms.resize(writer + 1, None);
        }
        let (Some(slot), Some(written)) = (key_forms.get_mut(writer), key_writers.get(writer))
        else {
            return Err(no_key());
        };
        let forms = match slot {
            Some(forms) => forms,
            None => slot.insert(plan.forms(written, writer != UNTOLD)?),
        };
        Ok((plan, forms))
    }

    /// The key's columns as a writer has them.
    fn told_key(&self, writer: usize) -> Result<Vec<(String, Mapped)>, Reject> {
        let fields = self.key_writers.get(writer).map(|writer| writer.fields.as_slice());
        let mut columns = Vec::new();
        for field in fields.unwrap_or_default() {
            let name = if field.name.is_empty() { self.bare_key()? } else { field.name.clone() };
            let mapped = field.mapped.clone().map_err(|ty| {
                Reject::new("unsupported_key", format!("key column {name} is {ty}"))
            })?;
            columns.push((name, self.options.adapt(mapped)));
        }
        Ok(columns)
    }

    /// The key's columns as they are declared, or as the first key's values let infer.
    fn untold_key(&self, cursor: Cursor<'_>) -> Result<Vec<(String, Mapped)>, Reject> {
        let mut cursor = cursor;
        let mut columns = Vec::new();
        if cursor.peek()? != b'{' {
            columns.push(self.untold_column(self.bare_key()?, &mut cursor)?);
            return Ok(columns);
        }
        let mut more = cursor.open_object()?;
        while more {
            let name = cursor.name()?.text()?.into_owned();
            columns.push(self.untold_column(name, &mut cursor)?);
            more = cursor.next_field()?;
        }
        Ok(columns)
    }

    fn untold_column(
        &self,
        name: String,
        cursor: &mut Cursor<'_>,
    ) -> Result<(String, Mapped), Reject> {
        let inferred = infer::raw(scalar(cursor)?.as_raw());
        let mapped = self.options.declared(&name).or_else(|| {
            let ty = inferred?;
            Some(Mapped { form: Form::of_column(&ty)?, ty })
        });
        match mapped {
            Some(mapped) => Ok((name, mapped)),
            None => Err(Reject::new(
                "unsupported_key",
                format!("key column {name} needs a declared type"),
            )),
        }
    }

    /// The column of a key that is one value without a name.
    fn bare_key(&self) -> Result<String, Reject> {
        match self.options.declared_key.as_slice() {
            [name] => Ok(name.clone()),
            _ => Err(Reject::new(
                "no_key",
                "the key is one value without a name: declare the key's column",
            )),
        }
    }

    /// The key of a change whose record has none, from the row's declared key columns.
    fn image_key(
        &mut self,
        value: &[u8],
        writer: usize,
        envelope: &Envelope,
        image: &Option<Range<usize>>,
    ) -> Result<Key, Reject> {
        let image = image.clone().filter(|_| !self.options.declared_key.is_empty());
        let image = image.ok_or_else(no_key)?;
        let columns = self.image_columns(writer)?;
        let forms: Option<Vec<Form>> = columns.iter().map(|column| column.form.clone()).collect();
        let forms = forms.ok_or_else(no_key)?;
        if self.key.is_none() {
            let fields = columns.into_iter().zip(&forms);
            let fields = fields
                .map(|(column, form)| (column.name, Mapped { ty: column.ty, form: form.clone() }));
            self.key = Some(KeyPlan::of_fields(fields.collect())?);
        }
        let plan = self.key.as_mut().ok_or_else(no_key)?;
        let key = plan.read_image(Cursor::new(value, image.start), &forms)?;
        if let (Some(before), Some(_)) = (&envelope.before, &envelope.after) {
            let old = plan.read_image(Cursor::new(value, before.start), &forms)?;
            if old != key {
                return Err(Reject::new(
                    "key_changed",
                    "an update without a key changes the row's key",
                ));
            }
        }
        Ok(key)
    }

    /// The declared key's columns as the writer of a row has them.
    fn image_columns(&self, writer: usize) -> Result<Vec<KeyColumn>, Reject> {
        let told = self.writers.get(writer).filter(|_| writer != UNTOLD);
        let table = self.schema.as_deref();
        let column = |name: &String| {
            let mapped = match told {
                Some(writer) => writer.field(name).and_then(|field| field.mapped.clone().ok()),
                None => self.options.declared(name),
            };
            let stored = table.and_then(|table| table.column(name)).map(|column| column.ty.clone());
            let mapped = mapped.map(|mapped| self.options.adapt(mapped));
            let ty = stored.or_else(|| Some(mapped.as_ref()?.ty.clone()));
            let ty = ty.ok_or_else(|| {
                Reject::new(
                    "no_key",
                    format!("the type of key column {name} is unknown: declare it"),
                )
            })?;
            let form = mapped.map(|mapped| mapped.form).or_else(|| Form::of_column(&ty));
            Ok(KeyColumn { name: name.clone(), ty, form })
        };
        self.options.declared_key.iter().map(column).collect()
    }

    /// The schema that the table must have to take `rows`: the current one when they bring nothing new, else the
    /// current one with columns added, or that of a new table. Fails ([`crate::error::Kind::Data`]) when a column's
    /// type has changed so that the table's does not hold it.
    pub fn table_schema(&mut self, rows: &[Row<'_>]) -> Result<Arc<TableSchema>> {
        let mut wanted = Wanted::default();
        let mut last = None;
        for row in rows {
            if row.writer == WriterId(0) {
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
        for field in &writer.fields {
            let Ok(mapped) = &field.mapped else { continue };
            let Mapped { ty, .. } = self.options.adapt(mapped.clone());
            let table = self.schema.as_deref().and_then(|schema| schema.column(&field.name));
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
        let read = || -> Result<Vec<(String, ColumnType)>, Reject> {
            let mut found = Vec::new();
            let mut cursor = Cursor::new(row.bytes, 0);
            let mut more = cursor.open_object()?;
            while more {
                let name = cursor.name()?.text()?;
                let known =
                    self.schema.as_deref().is_some_and(|schema| schema.index_of(&name).is_some());
                if known {
                    cursor.skip()?;
                } else if let Some(declared) = self.options.declared(&name) {
                    cursor.skip()?;
                    found.push((name.into_owned(), declared.ty));
                } else if let Some(ty) = infer::value(&mut cursor)? {
                    found.push((name.into_owned(), ty));
                }
                more = cursor.next_field()?;
            }
            Ok(found)
        };
        for (name, ty) in read().unwrap_or_default() {
            wanted.infer(&name, ty);
        }
    }

    fn writer(&self, id: WriterId) -> Result<&Writer> {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.writers
            .get(index)
            .ok_or_else(|| Error::internal("a row of a writer that is not known"))
    }

    /// The second stage: the columns of `rows`, as `schema` has them.
    pub fn columns(&mut self, rows: &[Row<'_>], schema: &TableSchema) -> Result<Columns> {
        let bytes: usize = rows.iter().map(|row| row.bytes.len()).sum();
        if i32::try_from(bytes).is_err() {
            return Err(Error::internal("more than 2 GiB of rows to decode at once"));
        }
        let mut filler = Filler::new(schema, &self.placeholder, rows.len());
        let mut routes: Vec<(WriterId, Route)> = Vec::new();
        let mut at = 0;
        for (index, row) in rows.iter().enumerate() {
            if routes.get(at).is_none_or(|(id, _)| *id != row.writer) {
                at = match routes.iter().position(|(id, _)| *id == row.writer) {
                    Some(known) => known,
                    None => {
                        routes.push((row.writer, self.route(row.writer, schema)?));
                        routes.len() - 1
                    }
                };
            }
            let Some((_, route)) = routes.get(at) else { continue };
            let outcome = json_row(&mut filler, index, row, route);
            let outcome = outcome.and_then(|()| self.fill_key(&mut filler, index, row, schema));
            filler.end_row(index, row, outcome);
        }
        filler.finish()
    }

    fn route(&self, id: WriterId, schema: &TableSchema) -> Result<Route> {
        if id == WriterId(0) {
            return Ok(Route::of_table(schema, &self.options));
        }
        Route::of_writer(self.writer(id)?, schema)
    }

    /// Takes key columns that the row does not have from the record's key.
    fn fill_key(
        &self,
        filler: &mut Filler<'_>,
        index: usize,
        row: &Row<'_>,
        schema: &TableSchema,
    ) -> Result<(), Reject> {
        for name in schema.key() {
            let Some(column) = schema.index_of(name).filter(|column| !filler.has(*column, index))
            else {
                continue;
            };
            let Some(key) = row.key else { continue };
            self.fill_from_key(filler, index, (name, column), key)?;
        }
        Ok(())
    }

    fn fill_from_key(
        &self,
        filler: &mut Filler<'_>,
        index: usize,
        (name, column): (&str, usize),
        key: &[u8],
    ) -> Result<(), Reject> {
        let payload = self.keys.find(key)?;
        let writer = payload.schema.unwrap_or(UNTOLD);
        let plan = self.key.as_ref().ok_or_else(no_key)?;
        let forms = self.key_forms.get(writer).and_then(Option::as_ref).ok_or_else(no_key)?;
        let place = plan.columns.iter().position(|column| column.name == name);
        let form = place.and_then(|place| forms.get(place)).ok_or_else(no_key)?;
        let mut cursor = Cursor::new(key, payload.at);
        if cursor.peek()? != b'{' {
            return filler.put(index, column, form, scalar(&mut cursor)?.as_raw(), false);
        }
        let mut more = cursor.open_object()?;
        while more {
            if cursor.name()?.is(name) {
                return filler.put(index, column, form, scalar(&mut cursor)?.as_raw(), false);
            }
            cursor.skip()?;
            more = cursor.next_field()?;
        }
        Ok(())
    }
}

/// Columns that a table must get.
#[derive(Debug, Default)]
struct Wanted {
    columns: Vec<Column>,
    writers: HashSet<WriterId>,
}

impl Wanted {
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

/// The number of an equal writer, or of this one from now on.
fn learn(writers: &mut Vec<Writer>, writer: Writer) -> usize {
    match writers.iter().position(|known| *known == writer) {
        Some(known) => known,
        None => {
            writers.push(writer);
            writers.len() - 1
        }
    }
}

fn row_ref(value: &[u8], writer: usize, image: &Option<Range<usize>>) -> Result<RowRef, Reject> {
    let image = image.clone().filter(|image| value.get(image.start) == Some(&b'{'));
    let image = image.ok_or_else(|| Reject::new("no_row", "the change has no row after it"))?;
    let narrow = |place: usize| {
        u32::try_from(place).map_err(|_| Reject::new("too_large", "a record of more than 4 GiB"))
    };
    let (start, end) = (narrow(image.start)?, narrow(image.end)?);
    Ok(RowRef { writer: WriterId(narrow(writer)?), start, end })
}

fn foreign() -> Reject {
    Reject::new("not_an_envelope", "the record is no envelope of Debezium")
}

fn truncate() -> Reject {
    Reject::new("truncate_unsupported", "a truncate is not applied to the table")
}

fn no_key() -> Reject {
    Reject::new("no_key", "the record has no key, and a table needs one to apply changes by")
}

#[cfg(test)]
mod tests;
