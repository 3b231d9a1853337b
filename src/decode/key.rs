//! Keys: a record's key, whatever form it came in, as the table's key.

use std::borrow::Cow;

use super::avro::Values;
use super::json::{Cursor, Malformed, integer, is_number};
use super::types::{Form, Mapped, Misfit, Raw, Stored, holds, store, type_name};
use super::writer::{Field, Writer};
use super::{Options, Reject};
use crate::key::{Key, KeyBuilder};
use crate::schema::{Column, ColumnType, TableSchema};

/// The reason of records whose key has other columns than the table's.
pub(super) const KEY_MISMATCH: &str = "key_mismatch";

/// The key's columns as the table has them, or will have them once its first rows are committed.
#[derive(Debug)]
pub(super) struct KeyPlan {
    pub(super) columns: Vec<KeyColumn>,
    /// A column whose keys came in a type that the table's does not hold: its name, the table's type, the writer's.
    pub(super) conflict: Option<(String, ColumnType, ColumnType)>,
    builder: KeyBuilder,
    scratch: Vec<u8>,
}

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyColumn {
    pub(super) name: String,
    pub(super) ty: ColumnType,
    /// How its values are written when no schema tells; none when that is ambiguous.
    pub(super) form: Option<Form>,
}

/// How one writer writes the key's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyForms {
    /// The form of each column.
    pub(super) forms: Vec<Form>,
    /// The place of each column among the writer's fields; empty without a schema.
    pub(super) places: Vec<usize>,
}

impl KeyPlan {
    fn new(columns: Vec<KeyColumn>) -> Self {
        let builder = KeyBuilder::new(columns.iter().map(|column| &column.ty));
        Self { columns, conflict: None, builder, scratch: Vec::new() }
    }

    /// The plan of a table's key; none for a table without one.
    pub(super) fn of_table(schema: &TableSchema, options: &Options) -> Option<Self> {
        let column = |column: &Column| KeyColumn {
            name: column.name.clone(),
            ty: column.ty.clone(),
            form: options.form(&column.name, &column.ty),
        };
        let columns: Vec<KeyColumn> = schema.key_columns().map(column).collect();
        (!columns.is_empty()).then(|| Self::new(columns))
    }

    /// The plan that a first key's fields give.
    pub(super) fn of_fields(fields: Vec<(String, Mapped)>) -> Result<Self, Reject> {
        let mut columns = Vec::with_capacity(fields.len());
        for (name, Mapped { ty, form }) in fields {
            if matches!(ty, ColumnType::Float32 | ColumnType::Float64 | ColumnType::List(_)) {
                let ty = type_name(&ty);
                let what = format!("key column {name} is {ty}, which identifies no row");
                return Err(Reject::new("unsupported_key", what));
            }
            columns.push(KeyColumn { name, ty, form: Some(form) });
        }
        if columns.is_empty() {
            return Err(Reject::new("no_key", "the key has no columns"));
        }
        Ok(Self::new(columns))
    }

    /// How each column is written by `writer`; by the table's own forms when it is untold. Columns become as wide as the
    /// writer's when `widen` says so: the keys stay the same.
    pub(super) fn forms(
        &mut self,
        writer: &Writer,
        told: bool,
        options: &Options,
        widen: bool,
    ) -> Result<KeyForms, Reject> {
        if told {
            self.meet(writer, options, widen);
        }
        let mut key_forms = KeyForms { forms: Vec::new(), places: Vec::new() };
        for column in &self.columns {
            let form = if told {
                let named = |field: &Field| field.name == column.name || field.name.is_empty();
                let place = writer.fields.iter().position(named).ok_or_else(|| self.mismatch())?;
                key_forms.places.push(place);
                let field = writer.fields.get(place).ok_or_else(|| self.mismatch())?;
                Some(options.told(&column.name, &field.mapped)?.form)
            } else {
                column.form.clone()
            };
            key_forms.forms.push(form.ok_or_else(|| ambiguous(&column.name, &column.ty))?);
        }
        Ok(key_forms)
    }

    /// Compares the columns' types with a writer's.
    fn meet(&mut self, writer: &Writer, options: &Options, widen: bool) {
        for column in &mut self.columns {
            let named = |field: &&Field| field.name == column.name || field.name.is_empty();
            let told = writer.fields.iter().find(named);
            let told = told.map(|field| options.told(&column.name, &field.mapped));
            let Some(Ok(told)) = told else { continue };
            let known = Column::new(&column.name, column.ty.clone(), false);
            let ty = told.in_column(Some(&known));
            match column.ty.widened(&ty) {
                Some(wide) if widen => column.ty = wide,
                // The row of such a key says what is wrong.
                Some(_) => {}
                None if holds(&column.ty, &ty) => {}
                None => {
                    let conflict = (column.name.clone(), column.ty.clone(), ty);
                    self.conflict.get_or_insert(conflict);
                }
            }
        }
    }

    /// The key of an Avro record's values; `image` when the record is a row, which has other columns as well.
    pub(super) fn read_avro(
        &mut self,
        mut values: Values<'_>,
        forms: &KeyForms,
        image: bool,
    ) -> Result<Key, Reject> {
        self.builder.reset();
        let mut later = Vec::new();
        let (mut next, mut place) = (0, 0);
        while let Some(raw) = values.next()? {
            if forms.places.get(next) == Some(&place) {
                self.push(next, raw.as_raw(), &forms.forms)?;
                next += 1;
            } else if !image && !forms.places.contains(&place) {
                return Err(self.mismatch());
            } else {
                later.push((place, raw));
            }
            place += 1;
        }
        // What is left comes earlier in the record than in the key.
        for (index, place) in forms.places.iter().enumerate().skip(next) {
            let found = later.iter().find(|(other, _)| other == place);
            let (_, value) = found.ok_or_else(|| self.mismatch())?;
            self.push(index, value.as_raw(), &forms.forms)?;
        }
        if !image {
            values.finish()?;
        }
        Ok(self.builder.finish())
    }

    /// The key at the cursor, in JSON.
    pub(super) fn read_json(
        &mut self,
        cursor: &mut Cursor<'_>,
        forms: &[Form],
    ) -> Result<Key, Reject> {
        if cursor.peek()? != b'{' {
            // A converter that writes the single column's value alone.
            let raw = scalar(cursor)?;
            if self.columns.len() != 1 {
                return Err(self.mismatch());
            }
            self.push(0, raw.as_raw(), forms)?;
            return Ok(self.builder.finish());
        }
        let start = *cursor;
        if !self.read_in_order(cursor, forms)? {
            *cursor = start;
            self.builder.reset();
            self.read_by_name(cursor, forms, false)?;
        }
        Ok(self.builder.finish())
    }

    /// The key that is one text, for the column named `name`.
    pub(super) fn of_text(&mut self, name: &str, text: &str) -> Result<Key, Reject> {
        self.builder.reset();
        let [KeyColumn { name: own, .. }] = self.columns.as_slice() else {
            return Err(self.mismatch());
        };
        if own != name {
            return Err(self.mismatch());
        }
        self.push(0, Raw::Text(text), &[Form::Text])?;
        Ok(self.builder.finish())
    }

    /// The key in a row, which has other columns as well.
    pub(super) fn read_image(
        &mut self,
        mut cursor: Cursor<'_>,
        forms: &[Form],
    ) -> Result<Key, Reject> {
        self.builder.reset();
        self.read_by_name(&mut cursor, forms, true)?;
        Ok(self.builder.finish())
    }

    /// False when the fields are not just the key's columns in the key's order.
    fn read_in_order(&mut self, cursor: &mut Cursor<'_>, forms: &[Form]) -> Result<bool, Reject> {
        self.builder.reset();
        let mut more = cursor.open_object()?;
        for index in 0..self.columns.len() {
            let expected = self.columns.get(index).map(|column| column.name.as_str());
            if !more || !expected.is_some_and(|expected| expected_is(cursor, expected)) {
                return Ok(false);
            }
            let raw = value(cursor)?;
            self.push(index, raw.as_raw(), forms)?;
            more = cursor.next_field()?;
        }
        Ok(!more)
    }

    fn read_by_name(
        &mut self,
        cursor: &mut Cursor<'_>,
        forms: &[Form],
        image: bool,
    ) -> Result<(), Reject> {
        let mut places = vec![None; self.columns.len()];
        let mut more = cursor.open_object()?;
        while more {
            let name = cursor.name()?;
            let index = self.columns.iter().position(|column| name.is(&column.name));
            match index.and_then(|index| places.get_mut(index)) {
                Some(place @ None) => *place = Some(*cursor),
                None if image => {}
                _ => return Err(self.mismatch()),
            }
            cursor.skip()?;
            more = cursor.next_field()?;
        }
        for (index, place) in places.into_iter().enumerate() {
            let mut place = place.ok_or_else(|| self.mismatch())?;
            let raw = value(&mut place)?;
            self.push(index, raw.as_raw(), forms)?;
        }
        Ok(())
    }

    /// Appends the value of the key's column at `index`.
    pub(super) fn push(
        &mut self,
        index: usize,
        raw: Raw<'_>,
        forms: &[Form],
    ) -> Result<(), Reject> {
        let Self { columns, builder, scratch, .. } = self;
        let (Some(column), Some(form)) = (columns.get(index), forms.get(index)) else {
            return Err(Reject::new(KEY_MISMATCH, "the key has more columns than the table's"));
        };
        if raw == Raw::Null {
            return Err(Reject::new("null_key", format!("key column {} is null", column.name)));
        }
        match store(raw, form, &column.ty, scratch) {
            Ok(Stored::Boolean(value)) => builder.push_i64(value.into()),
            Ok(Stored::Int32(value)) => builder.push_i64(value.into()),
            Ok(Stored::Int64(value)) => builder.push_i64(value),
            Ok(Stored::Decimal(value)) => builder.push_i128(value),
            Ok(Stored::Text(text)) => builder.push_bytes(text.as_bytes()),
            Ok(Stored::Bytes(bytes)) => builder.push_bytes(bytes),
            Ok(Stored::Float32(_) | Stored::Float64(_)) => {
                let what = format!("key column {} is a floating-point number", column.name);
                return Err(Reject::new("unsupported_key", what));
            }
            Err(misfit) => return Err(misfit_in(&column.name, &column.ty, misfit)),
        }
        Ok(())
    }

    fn mismatch(&self) -> Reject {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let names = names.join(", ");
        Reject::new(
            KEY_MISMATCH,
            format!("the record's key is not of the table's key columns ({names})"),
        )
    }
}

fn expected_is(cursor: &mut Cursor<'_>, expected: &str) -> bool {
    cursor.name().is_ok_and(|name| name.is(expected))
}

/// The reject of a value that its column cannot hold.
pub(super) fn misfit_in(column: &str, ty: &ColumnType, misfit: Misfit) -> Reject {
    let ty = type_name(ty);
    Reject::new(misfit.reason, format!("column {column} ({ty}): {}", misfit.what))
}

/// The reject of a value whose type nothing tells.
pub(super) fn ambiguous(column: &str, ty: &ColumnType) -> Reject {
    let ty = type_name(ty);
    Reject::new(
        "undeclared_type",
        format!(
            "column {column} is {ty} and its unit is unknown without a schema: declare its type"
        ),
    )
}

/// A value, its text unescaped.
#[derive(Debug)]
pub(super) enum Scalar<'a> {
    Plain(Raw<'a>),
    Text(Cow<'a, str>),
    /// An object or array.
    Json(Cow<'a, str>),
}

impl Scalar<'_> {
    #[inline]
    pub(super) fn as_raw(&self) -> Raw<'_> {
        match self {
            Self::Plain(raw) => *raw,
            Self::Text(text) => Raw::Text(text),
            Self::Json(json) => Raw::Json(json),
        }
    }
}

/// Reads a value, whatever it is.
#[inline]
pub(super) fn value<'a>(cursor: &mut Cursor<'a>) -> Result<Scalar<'a>, Malformed> {
    if matches!(cursor.peek()?, b'{' | b'[') {
        let place = cursor.skip()?;
        let json = std::str::from_utf8(cursor.slice(place));
        return Ok(Scalar::Json(json.map_err(|_| Malformed("text that is not UTF-8"))?.into()));
    }
    scalar(cursor)
}

/// Reads a value that is no object and no array.
#[inline]
pub(super) fn scalar<'a>(cursor: &mut Cursor<'a>) -> Result<Scalar<'a>, Malformed> {
    if cursor.peek()? == b'"' {
        let string = cursor.string()?;
        return Ok(Scalar::Text(cursor.text(string)?));
    }
    Ok(Scalar::Plain(match cursor.scalar()? {
        b"null" => Raw::Null,
        b"true" => Raw::Boolean(true),
        b"false" => Raw::Boolean(false),
        other => match integer(other) {
            Some(value) => Raw::Integer(value),
            None if is_number(other) => match std::str::from_utf8(other) {
                Ok(number) => Raw::Number(number),
                Err(_) => return Err(Malformed("a number that is none")),
            },
            None => return Err(Malformed("a value that is neither a number nor a literal")),
        },
    }))
}
