//! The second stage: rows' values straight into the table's columns.

use arrow::array::RecordBatch;

use super::cells::Cells;
use super::evolve;
use super::flattened::AddedNames;
use super::infer;
use super::json::Cursor;
use super::key::{ambiguous, misfit_in, scalar, value};
use super::placeholder::{ListMatch, Placeholder};
use super::types::{Form, InvalidValue, Misfit, Raw, Stored, store, type_name};
use super::writer::{Field, Writer};
use super::{Columns, Operation, Options, Reject, Row};
use crate::error::{Error, Result};
use crate::metrics;
use crate::schema::{
    Column, ColumnType, OFFSET_COLUMN, OP_COLUMN, PARTITION_COLUMN, SOURCE_COLUMN, TS_COLUMN,
    TableSchema,
};
use crate::source_position::SourcePosition;

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
    /// The same under a name that the column had before; what the row has under the present one counts.
    Former(usize, Form),
    /// Its unit is not known (the column's type is named here): it must be null.
    Ambiguous(ColumnType),
    /// It is no column of the source, or one that the table does not have and nobody asks for.
    Nowhere,
}

impl Route {
    /// The way of the rows of a writer whose schema is known. Rows that only supply values which later rows left out may
    /// have columns that the table does not get: `supplies` passes over them.
    pub(super) fn of_writer(
        writer: &Writer,
        schema: &TableSchema,
        options: &Options,
        supplies: bool,
    ) -> Result<Self> {
        let target = |field: &Field| {
            if field.added {
                return Ok(Target::Nowhere);
            }
            let told = options.told(&field.name, &field.mapped);
            let told = told.map_err(|reject| Error::invalid(reject.message))?;
            let form = told.form.clone();
            let column = schema.column(evolve::name_now(schema.columns(), writer, &field.name));
            let ty = told.in_column(column);
            let wanted = (field.name.as_str(), &ty);
            let home = evolve::home(schema.columns(), writer, wanted, options.evolution);
            match (home, column) {
                (Some(index), _) => Ok(Target::Column(index, form)),
                (None, Some(column)) => Err(conflict(&field.name, &column.ty, &ty)),
                (None, None) if supplies => Ok(Target::Nowhere),
                (None, None) => {
                    Err(Error::internal(format!("the table has no column {} yet", field.name)))
                }
            }
        };
        let fields = writer
            .fields
            .iter()
            .map(|field| Ok(RouteField { name: field.name.clone(), target: target(field)? }));
        Ok(Self { fields: fields.collect::<Result<_>>()?, added: None })
    }

    /// The way of rows that come without a schema.
    pub(super) fn of_table(schema: &TableSchema, options: &Options) -> Self {
        let columns = schema.columns().iter().enumerate();
        let columns = columns.filter(|(_, column)| !crate::schema::is_metadata(&column.name));
        let field = |(index, column): (usize, &Column)| {
            let target = match options.form(&column.name, &column.ty) {
                Some(form) => Target::Column(index, form),
                None => Target::Ambiguous(column.ty.clone()),
            };
            RouteField { name: column.name.clone(), target }
        };
        let mut fields: Vec<RouteField> = columns.clone().map(field).collect();
        for (index, column) in columns {
            let form = || options.form(&column.name, &column.ty);
            for name in column.former.iter().filter(|name| schema.column(name).is_none()) {
                let target = form().map(|form| Target::Former(index, form));
                fields.extend(target.map(|target| RouteField { name: name.clone(), target }));
            }
        }
        Self { fields, added: None }
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
    options: &'a Options,
    placeholder: &'a Placeholder,
    cells: Vec<Cells>,
    metadata: [Option<usize>; 5],
    unavailable: Vec<(usize, usize)>,
    rejects: Vec<(usize, Reject)>,
    scratch: Vec<u8>,
    tally: Tally,
    /// Columns that hold one column of the source in several types.
    families: Vec<Vec<usize>>,
}

/// Values that were not stored as they came.
#[derive(Debug, Default)]
struct Tally {
    /// How many were replaced, by reason and policy.
    invalid: Vec<(&'static str, InvalidValue, u64)>,
    /// Values that look like a placeholder where none can be.
    literals: u64,
}

impl Tally {
    fn count(&mut self, reason: &'static str, policy: InvalidValue) {
        match self.invalid.iter_mut().find(|(r, p, _)| (*r, *p) == (reason, policy)) {
            Some((_, _, count)) => *count += 1,
            None => self.invalid.push((reason, policy, 1)),
        }
    }
}

impl<'a> Filler<'a> {
    pub(super) fn new(
        schema: &'a TableSchema,
        options: &'a Options,
        placeholder: &'a Placeholder,
        rows: usize,
    ) -> Self {
        let cells = schema.columns().iter().map(|column| Cells::new(&column.ty, rows)).collect();
        let metadata = [OP_COLUMN, TS_COLUMN, PARTITION_COLUMN, OFFSET_COLUMN, SOURCE_COLUMN];
        Self {
            schema,
            options,
            placeholder,
            cells,
            metadata: metadata.map(|name| schema.index_of(name)),
            unavailable: Vec::new(),
            rejects: Vec::new(),
            scratch: Vec::new(),
            tally: Tally::default(),
            families: evolve::families(schema),
        }
    }

    /// Ends the row at `index`: metadata, nulls for columns it did not have, or a reject's void.
    pub(super) fn end_row(&mut self, index: usize, row: &Row<'_>, outcome: Result<(), Reject>) {
        let outcome = outcome.and_then(|()| {
            self.metadata(row).map_err(|misfit| Reject::new(misfit.reason, misfit.what))?;
            self.keep_families(index);
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

    /// A value that the source did not send because it did not change may lie in the column of an earlier type: what
    /// the row lacks of the value's family is unavailable as well.
    fn keep_families(&mut self, index: usize) {
        if self.families.is_empty() {
            return;
        }
        let here = |(row, column): &(usize, usize)| (*row == index).then_some(*column);
        let unavailable: Vec<usize> = self.unavailable.iter().rev().map_while(here).collect();
        for family in &self.families {
            if family.iter().any(|column| unavailable.contains(column)) {
                let lacking = family.iter().filter(|column| {
                    self.cells.get(**column).is_some_and(|cells| cells.len() <= index)
                });
                self.unavailable.extend(lacking.map(|column| (index, *column)));
            }
        }
    }

    fn metadata(&mut self, row: &Row<'_>) -> Result<(), Misfit> {
        let source_position = row.source_position.and_then(SourcePosition::text);
        let values = [
            Some(Stored::Text(row.operation.code())),
            row.source_micros.map(Stored::Int64),
            Some(Stored::Int32(row.partition)),
            Some(Stored::Int64(row.offset)),
            source_position.as_deref().map(Stored::Text),
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
        if raw == Raw::Null {
            if nullable() {
                cells.push_null();
                return Ok(());
            }
            return Err(self.misfit(column, Misfit::new("null_key", "null in a key column")));
        }
        if self.placeholder.is(raw, form) {
            if partial && nullable() {
                cells.push_null();
                self.unavailable.push((index, column));
                return Ok(());
            }
            // Whatever it looks like, it is what the source has.
            self.tally.literals += 1;
        }
        match store(raw, form, cells.ty(), &mut self.scratch).and_then(|value| cells.push(value)) {
            Ok(()) => Ok(()),
            Err(misfit) => self.on_misfit(column, misfit),
        }
    }

    /// A value does not fit its column: the policy may put another in its place.
    #[cold]
    fn on_misfit(&mut self, column: usize, misfit: Misfit) -> Result<(), Reject> {
        let Some(known) = self.schema.columns().get(column).filter(|_| misfit.invalid) else {
            return Err(self.misfit(column, misfit));
        };
        let policy = self.options.invalid_value(&known.name);
        let Some(cells) = self.cells.get_mut(column) else { return Ok(()) };
        let replaced = replace(cells, policy, misfit, known.nullable);
        self.tally.count(misfit.reason, if replaced { policy } else { InvalidValue::DeadLetter });
        if replaced { Ok(()) } else { Err(self.misfit(column, misfit)) }
    }

    /// Puts a list into a column: `fill` puts its elements one after the other.
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
        let known = self.schema.columns().get(column);
        let policy =
            || known.map_or(self.options.invalid, |known| self.options.invalid_value(&known.name));
        let elements = self.cells.get_mut(column).and_then(Cells::elements);
        let (Form::List(form), Some(cells)) = (form, elements) else {
            let misfit = Misfit::mismatch("an array in a column of another type");
            return Err(self.misfit(column, misfit));
        };
        let (scratch, tally) = (&mut self.scratch, &mut self.tally);
        let mut elements = Elements {
            cells,
            form,
            scratch,
            tally,
            policy: policy(),
            list: self.placeholder.list(),
        };
        fill(&mut elements).map_err(|reject| Reject {
            message: match known {
                Some(column) => format!("column {}: {}", column.name, reject.message),
                None => reject.message,
            },
            ..reject
        })?;
        let is_placeholder = elements.list.is_whole();
        let Some(cells) = self.cells.get_mut(column) else { return Ok(()) };
        if is_placeholder && partial {
            cells.drop_open_list();
            cells.push_null();
            self.unavailable.push((index, column));
            return Ok(());
        }
        self.tally.literals += u64::from(is_placeholder);
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
        self.tally.report(&self.options.table, self.rejects.is_empty());
        Ok(Columns { rows, unavailable: self.unavailable, rejects: self.rejects })
    }
}

impl Tally {
    /// Counts what was replaced. Rows are decoded again without those that are rejected: what was replaced in others
    /// is counted only when there are none.
    fn report(self, table: &str, complete: bool) {
        for (reason, policy, count) in self.invalid {
            if complete || policy == InvalidValue::DeadLetter {
                metrics::invalid_values(table, reason, policy.name(), count);
            }
        }
        if complete && self.literals > 0 {
            metrics::placeholder_literals(table, self.literals);
        }
    }
}

/// Puts what the policy says in place of a value that does not fit; false when it says nothing.
fn replace(cells: &mut Cells, policy: InvalidValue, misfit: Misfit, nullable: bool) -> bool {
    match (policy, misfit.nearest) {
        (InvalidValue::Null, _) if nullable => {
            cells.push_null();
            true
        }
        (InvalidValue::Clamp, Some(nearest)) => cells.push(nearest).is_ok(),
        _ => false,
    }
}

/// The elements of a list being put.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    cells: &'a mut Cells,
    form: &'a Form,
    scratch: &'a mut Vec<u8>,
    tally: &'a mut Tally,
    policy: InvalidValue,
    list: ListMatch<'a>,
}

impl Elements<'_> {
    pub(super) fn put(&mut self, raw: Raw<'_>) -> Result<(), Reject> {
        self.list.element(raw);
        if raw == Raw::Null {
            self.cells.push_null();
            return Ok(());
        }
        let stored = store(raw, self.form, self.cells.ty(), self.scratch);
        match stored.and_then(|value| self.cells.push(value)) {
            Ok(()) => Ok(()),
            Err(misfit) => self.on_misfit(misfit),
        }
    }

    #[cold]
    fn on_misfit(&mut self, misfit: Misfit) -> Result<(), Reject> {
        let replaced = misfit.invalid && replace(self.cells, self.policy, misfit, true);
        if misfit.invalid {
            let policy = if replaced { self.policy } else { InvalidValue::DeadLetter };
            self.tally.count(misfit.reason, policy);
        }
        if replaced {
            return Ok(());
        }
        Err(Reject::new(misfit.reason, format!("an element: {}", misfit.what)))
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
            Some(RouteField { target: Target::Former(column, form), .. }) => {
                if !cursor.null()? {
                    json_value(filler, index, *column, form, &mut cursor, partial)?;
                }
            }
            Some(RouteField { target: Target::Nowhere, .. }) => {
                cursor.skip()?;
            }
            other => {
                let waits = cursor.null()? || (other.is_none() && tells_nothing(&mut cursor)?);
                if !waits && route.is_added(name.raw) {
                    cursor.skip()?;
                } else if !waits {
                    let name = cursor.text(name)?;
                    return Err(homeless(&name, other.map(|field| &field.target)));
                }
            }
        }
        more = cursor.next_field()?;
    }
    Ok(cursor.finish()?)
}

/// Decodes a value that is one column's.
pub(super) fn json_cell(
    filler: &mut Filler<'_>,
    index: usize,
    bytes: &[u8],
    (column, form): (usize, &Form),
) -> Result<(), Reject> {
    let mut cursor = Cursor::new(bytes, 0);
    json_value(filler, index, column, form, &mut cursor, false)?;
    Ok(cursor.finish()?)
}

/// Steps over a value that lets no column be inferred, an empty array or one of nulls: it waits as a null does.
fn tells_nothing(cursor: &mut Cursor<'_>) -> Result<bool, Reject> {
    let mut probe = *cursor;
    let tells = infer::value(&mut probe)?.is_some();
    if !tells {
        *cursor = probe;
    }
    Ok(!tells)
}

/// The reject of a value that has no column.
pub(super) fn homeless(name: &str, target: Option<&Target>) -> Reject {
    match target {
        Some(Target::Ambiguous(ty)) => ambiguous(name, ty),
        Some(Target::Column(..) | Target::Former(..) | Target::Nowhere) | None => {
            Reject::new("unknown_column", format!("the table has no column {name} for its value"))
        }
    }
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
        (b'{' | b'[', _) => {
            let value = value(cursor)?;
            filler.put(index, column, form, value.as_raw(), partial)
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
        let value = value(cursor)?;
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
    .hint(
        "give option type-conflict = \"new-column\" (or type-widening, where the type became wider), change the column \
         back at the source, or rebuild the table from the start of the topic",
    )
}
