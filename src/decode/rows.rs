//! The second stage: rows' values straight into the table's columns.

use arrow::array::RecordBatch;

use super::cells::Cells;
use super::flattened::AddedNames;
use super::json::Cursor;
use super::key::{ambiguous, misfit_in, scalar};
use super::placeholder::Placeholder;
use super::types::{Form, Misfit, Raw, Stored, store, type_name};
use super::writer::Writer;
use super::{Columns, Operation, Options, Reject, Row};
use crate::error::{Error, Result};
use crate::schema::{
    ColumnType, OFFSET_COLUMN, OP_COLUMN, PARTITION_COLUMN, TS_COLUMN, TableSchema,
};

/// Where the fields of one writer's rows go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) fields: Vec<RouteField>,
    /// Fields of other names that go nowhere, when the rows are flattened and come without a schema.
    pub(super) added: Option<AddedNames>,
}

/// Where a field goes.
#[derive(Debug)]
pub(super) struct RouteField {
    pub(super) name: String,
    pub(super) target: Target,
}

/// What becomes of a field's value.
#[derive(Debug)]
pub(super) enum Target {
    /// It goes into the table's column of this number.
    Column(usize, Form),
    /// No column holds its type (named here): it must be null.
    Unsupported(String),
    /// Its unit is not known (the column's type is named here): it must be null.
    Ambiguous(ColumnType),
    /// It is no column of the source.
    Nowhere,
}

impl Route {
    /// The way of the rows of a writer whose schema is known.
    pub(super) fn of_writer(writer: &Writer, schema: &TableSchema) -> Result<Self> {
        let mut fields = Vec::with_capacity(writer.fields.len());
        for field in &writer.fields {
            let target = match &field.mapped {
                _ if field.added => Target::Nowhere,
                Err(ty) => Target::Unsupported(ty.clone()),
                Ok(mapped) => {
                    let index = schema.index_of(&field.name).ok_or_else(|| {
                        Error::internal(format!("the table has no column {} yet", field.name))
                    })?;
                    Target::Column(index, mapped.form.clone())
                }
            };
            fields.push(RouteField { name: field.name.clone(), target });
        }
        Ok(Self { fields, added: None })
    }

    /// The way of rows that come without a schema.
    pub(super) fn of_table(schema: &TableSchema, options: &Options) -> Self {
        let columns = schema.columns().iter().enumerate();
        let columns = columns.filter(|(_, column)| !crate::schema::is_metadata(&column.name));
        let field = |(index, column): (usize, &crate::schema::Column)| {
            let target = match options.form(&column.name, &column.ty) {
                Some(form) => Target::Column(index, form),
                None => Target::Ambiguous(column.ty.clone()),
            };
            RouteField { name: column.name.clone(), target }
        };
        Self { fields: columns.map(field).collect(), added: None }
    }

    /// True for a field that is no column of the source.
    fn is_added(&self, name: &[u8]) -> bool {
        let is_added = |names: &AddedNames| {
            std::str::from_utf8(name).is_ok_and(|name| names.of(name).is_some())
        };
        self.added.as_ref().is_some_and(is_added)
    }
}

/// The columns of a batch, being filled.
#[derive(Debug)]
pub(super) struct Filler<'a> {
    schema: &'a TableSchema,
    placeholder: &'a Placeholder,
    cells: Vec<Cells>,
    metadata: [Option<usize>; 4],
    unavailable: Vec<(usize, usize)>,
    rejects: Vec<(usize, Reject)>,
    scratch: Vec<u8>,
}

impl<'a> Filler<'a> {
    pub(super) fn new(schema: &'a TableSchema, placeholder: &'a Placeholder, rows: usize) -> Self {
        let cells = schema.columns().iter().map(|column| Cells::new(&column.ty, rows)).collect();
        let metadata = [OP_COLUMN, TS_COLUMN, PARTITION_COLUMN, OFFSET_COLUMN];
        Self {
            schema,
            placeholder,
            cells,
            metadata: metadata.map(|name| schema.index_of(name)),
            unavailable: Vec::new(),
            rejects: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Ends the row at `index`: metadata, nulls for columns it did not have, or a reject's void.
    pub(super) fn end_row(&mut self, index: usize, row: &Row<'_>, outcome: Result<(), Reject>) {
        let outcome = outcome.and_then(|()| {
            self.metadata(row).map_err(|misfit| Reject::new(misfit.reason, misfit.what))?;
            let columns = self.schema.columns().iter().zip(&mut self.cells);
            for (column, cells) in columns.filter(|(_, cells)| cells.len() <= index) {
                if !column.nullable {
                    let what = format!("column {} is missing from the row", column.name);
                    return Err(Reject::new("missing_column", what));
                }
                cells.push_null();
            }
            Ok(())
        });
        let Err(reject) = outcome else { return };
        self.rejects.push((index, reject));
        self.unavailable.retain(|(row, _)| *row != index);
        for (column, cells) in self.schema.columns().iter().zip(&mut self.cells) {
            if cells.len() <= index {
                cells.drop_open_list();
                cells.push_void(column.nullable);
            }
        }
    }

    fn metadata(&mut self, row: &Row<'_>) -> Result<(), Misfit> {
        let values = [
            Some(Stored::Text(row.operation.code())),
            row.source_micros.map(Stored::Int64),
            Some(Stored::Int32(row.partition)),
            Some(Stored::Int64(row.offset)),
        ];
        for (column, value) in self.metadata.into_iter().zip(values) {
            let Some(cells) = column.and_then(|column| self.cells.get_mut(column)) else {
                continue;
            };
            match value {
                Some(value) => cells.push(value)?,
                None => cells.push_null(),
            }
        }
        Ok(())
    }

    /// The number of values in a column, which tells whether the row has it already.
    pub(super) fn has(&self, column: usize, index: usize) -> bool {
        self.cells.get(column).is_some_and(|cells| cells.len() > index)
    }

    /// Puts a scalar into a column.
    #[inline]
    pub(super) fn put(
        &mut self,
        index: usize,
        column: usize,
        form: &Form,
        raw: Raw<'_>,
        partial: bool,
    ) -> Result<(), Reject> {
        let Some(cells) = self.cells.get_mut(column) else { return Ok(()) };
        if cells.len() > index {
            return Err(self.twice(column));
        }
        let nullable = || self.schema.columns().get(column).is_none_or(|column| column.nullable);
        let put = if raw == Raw::Null {
            if nullable() {
                cells.push_null();
                return Ok(());
            }
            Err(Misfit { reason: "null_key", what: "null in a key column" })
        } else if partial && self.placeholder.is(raw, form) && nullable() {
            cells.push_null();
            self.unavailable.push((index, column));
            return Ok(());
        } else {
            store(raw, form, cells.ty(), &mut self.scratch).and_then(|value| cells.push(value))
        };
        put.map_err(|misfit| self.misfit(column, misfit))
    }

    /// Puts a list into a column: `next` gives its elements one after the other.
    pub(super) fn put_list(
        &mut self,
        index: usize,
        column: usize,
        form: &Form,
        partial: bool,
        fill: impl FnOnce(&mut Elements<'_>) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        if self.has(column, index) {
            return Err(self.twice(column));
        }
        let (Form::List(form), Some(cells)) = (form, self.cells.get_mut(column)) else {
            return Err(
                self.misfit(column, Misfit::mismatch("an array in a column of another type"))
            );
        };
        let scratch = &mut self.scratch;
        let Some(elements) = cells.elements() else {
            return Err(
                self.misfit(column, Misfit::mismatch("an array in a column of another type"))
            );
        };
        fill(&mut Elements { cells: elements, form, scratch }).map_err(|reject| Reject {
            message: match self.schema.columns().get(column) {
                Some(column) => format!("column {}: {}", column.name, reject.message),
                None => reject.message,
            },
            ..reject
        })?;
        let Some(cells) = self.cells.get_mut(column) else { return Ok(()) };
        if partial && self.placeholder.is_list(cells) {
            cells.drop_open_list();
            cells.push_null();
            self.unavailable.push((index, column));
            return Ok(());
        }
        cells.end_list().map_err(|misfit| self.misfit(column, misfit))
    }

    fn twice(&self, column: usize) -> Reject {
        let name = self.schema.columns().get(column).map(|column| column.name.as_str());
        let what = format!("field {} comes twice in one row", name.unwrap_or_default());
        Reject::new("duplicate_field", what)
    }

    fn misfit(&self, column: usize, misfit: Misfit) -> Reject {
        match self.schema.columns().get(column) {
            Some(column) => misfit_in(&column.name, &column.ty, misfit),
            None => Reject::new(misfit.reason, misfit.what),
        }
    }

    /// The batch.
    pub(super) fn finish(self) -> Result<Columns> {
        let arrow = self.schema.arrow();
        let fields = arrow.fields().iter().zip(self.cells);
        let arrays = fields.map(|(field, cells)| cells.finish(field.data_type()));
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let rows = RecordBatch::try_new(arrow, arrays).map_err(|error| {
            Error::internal("decoded columns do not make a batch").because(error)
        })?;
        Ok(Columns { rows, unavailable: self.unavailable, rejects: self.rejects })
    }
}

/// The elements of a list being put.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    cells: &'a mut Cells,
    form: &'a Form,
    scratch: &'a mut Vec<u8>,
}

impl Elements<'_> {
    pub(super) fn put(&mut self, raw: Raw<'_>) -> Result<(), Reject> {
        if raw == Raw::Null {
            self.cells.push_null();
            return Ok(());
        }
        store(raw, self.form, self.cells.ty(), self.scratch)
            .and_then(|value| self.cells.push(value))
            .map_err(|misfit| Reject::new(misfit.reason, format!("an element: {}", misfit.what)))
    }
}

/// True when a value may be missing from the row because it did not change.
pub(super) fn is_partial(row: &Row<'_>) -> bool {
    row.operation == Operation::Update || (row.operation == Operation::Create && row.moved)
}

/// Decodes a row in JSON.
pub(super) fn json_row(
    filler: &mut Filler<'_>,
    index: usize,
    row: &Row<'_>,
    route: &Route,
) -> Result<(), Reject> {
    let partial = is_partial(row);
    let text = std::str::from_utf8(row.bytes);
    let text = text.map_err(|_| Reject::new("malformed_json", "the row is not UTF-8"))?;
    let mut cursor = Cursor::over(text);
    let mut more = cursor.open_object()?;
    let mut expected = 0;
    while more {
        let name = cursor.name()?;
        let guess = route.fields.get(expected).filter(|field| name.is(&field.name));
        let field = match guess {
            Some(field) => {
                expected += 1;
                Some(field)
            }
            None => {
                let found = route.fields.iter().position(|field| name.is(&field.name));
                expected = found.map_or(expected, |found| found + 1);
                found.and_then(|found| route.fields.get(found))
            }
        };
        match field {
            Some(RouteField { target: Target::Column(column, form), .. }) => {
                json_value(filler, index, *column, form, &mut cursor, partial)?;
            }
            Some(RouteField { target: Target::Nowhere, .. }) => {
                cursor.skip()?;
            }
            other => {
                if route.is_added(name.raw) {
                    cursor.skip()?;
                } else if !cursor.null()? {
                    let name = cursor.text(name)?;
                    return Err(homeless(&name, other.map(|field| &field.target)));
                }
            }
        }
        more = cursor.next_field()?;
    }
    Ok(cursor.finish()?)
}

/// The reject of a value that has no column.
pub(super) fn homeless(name: &str, target: Option<&Target>) -> Reject {
    let ty = match target {
        Some(Target::Ambiguous(ty)) => return ambiguous(name, ty),
        Some(Target::Unsupported(ty)) => ty.as_str(),
        Some(Target::Column(..) | Target::Nowhere) | None => {
            "an object, a nested array or a number out of range"
        }
    };
    Reject::new(
        "unsupported_type",
        format!("column {name} is {ty}, for which there is no column type yet"),
    )
}

#[inline]
fn json_value(
    filler: &mut Filler<'_>,
    index: usize,
    column: usize,
    form: &Form,
    cursor: &mut Cursor<'_>,
    partial: bool,
) -> Result<(), Reject> {
    match (cursor.peek()?, form) {
        (b'[', Form::List(_)) => {
            filler.put_list(index, column, form, partial, |elements| json_list(elements, cursor))
        }
        (b'{' | b'[', Form::Json) => {
            let place = cursor.skip()?;
            let text = std::str::from_utf8(cursor.slice(place)).ok();
            let text = text
                .filter(|text| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok());
            let text = text.ok_or(super::json::Malformed("a document that is no JSON"))?;
            filler.put(index, column, form, Raw::Text(text), partial)
        }
        (b'{' | b'[', _) => {
            let misfit = Misfit { reason: "unsupported_type", what: "an object or array" };
            Err(filler.misfit(column, misfit))
        }
        _ => {
            let value = scalar(cursor)?;
            filler.put(index, column, form, value.as_raw(), partial)
        }
    }
}

fn json_list(elements: &mut Elements<'_>, cursor: &mut Cursor<'_>) -> Result<(), Reject> {
    let mut more = cursor.open_array()?;
    while more {
        if matches!(cursor.peek()?, b'{' | b'[') {
            return Err(Reject::new("unsupported_type", "an array of objects or arrays"));
        }
        let value = scalar(cursor)?;
        elements.put(value.as_raw())?;
        more = cursor.next_element()?;
    }
    Ok(())
}

/// A column of the writer that the table's column of that name cannot take.
pub(super) fn conflict(name: &str, table: &ColumnType, writer: &ColumnType) -> Error {
    let (table, writer) = (type_name(table), type_name(writer));
    Error::data(format!(
        "column {name} is {table} in the table and {writer} in the topic, which does not fit it"
    ))
    .hint("change the column back at the source, or rebuild the table from the start of the topic")
}
