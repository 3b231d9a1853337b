//! Keys of records: from the record's key, its row or its header.

use super::{Decoder, Heading, UNTOLD, framed, is_untold, learn};
use crate::decode::envelope::end;
use crate::decode::infer;
use crate::decode::json::{Cursor, Malformed};
use crate::decode::key::{KEY_MISMATCH, KeyForms, KeyPlan, Scalar, scalar, value};
use crate::decode::rows::Filler;
use crate::decode::types::{Form, Mapped, Raw, Times};
use crate::decode::writer::{Field, Layout, Writer};
use crate::decode::{Reject, Row, ScanError};
use crate::key::Key;
use crate::record::Record;
use crate::schema::TableSchema;

/// The header of a create whose row had another key.
pub(super) const OLD_KEY: &str = "__debezium.oldkey";
/// The header of a delete whose row lives on under another key.
pub(super) const NEW_KEY: &str = "__debezium.newkey";

impl Decoder {
    /// The key in a header. What is in there is the connector's choice of converter; what cannot be read is as if it
    /// were not there.
    pub(super) fn header_key(
        &mut self,
        record: &Record<'_>,
        name: &str,
    ) -> Result<Option<Key>, ScanError> {
        let mut headers = record.headers();
        let Some((_, Some(value))) = headers.find(|(own, _)| *own == name) else {
            return Ok(None);
        };
        let conflict = self.key.as_mut().and_then(|key| key.conflict.take());
        let old = self.record_key(value);
        if let Some(key) = &mut self.key {
            key.conflict = conflict;
        }
        match old {
            Err(ScanError::Reject(_) | ScanError::KeyChanged(_)) => Ok(None),
            other => other,
        }
    }

    /// The key in a record's key; none when it is null.
    pub(super) fn record_key(&mut self, bytes: &[u8]) -> Result<Option<Key>, ScanError> {
        let key = self.read_key(bytes);
        match key {
            Err(ScanError::Reject(reject)) if reject.reason == KEY_MISMATCH => {
                let changed = self.changed_key(bytes).map(ScanError::KeyChanged);
                Err(changed.unwrap_or(ScanError::Reject(reject)))
            }
            key => key,
        }
    }

    /// What changed when the key of `bytes` is one that the table could have, but has not: one with more columns, or of
    /// others of its columns. Any other is a bad record's.
    fn changed_key(&self, bytes: &[u8]) -> Option<String> {
        let names = self.key_names(bytes)?;
        let own: Vec<&str> = self.key.as_ref()?.columns.iter().map(|c| c.name.as_str()).collect();
        let has = |name: &&str| names.iter().any(|other| other == name);
        let is_column = |name: &String| {
            own.contains(&name.as_str())
                || self.schema.as_ref().is_some_and(|schema| schema.column(name).is_some())
                || self.writers.iter().any(|writer| writer.field(name).is_some())
        };
        let all = own.iter().all(has);
        let changed = match all {
            true => names.len() > own.len(),
            false => names.iter().all(is_column),
        };
        let repeated = names
            .iter()
            .enumerate()
            .any(|(place, name)| names.iter().take(place).any(|n| n == name));
        let (names, own) = (names.join(", "), own.join(", "));
        (changed && !repeated).then(|| format!("its columns were {own} and are {names} now"))
    }

    /// The names of a key's columns.
    fn key_names(&self, bytes: &[u8]) -> Option<Vec<String>> {
        let of_writer = |writer: usize| {
            let fields = &self.key_writers.get(writer)?.fields;
            Some(fields.iter().map(|field| field.name.clone()).collect())
        };
        if let Ok(Some((id, _))) = framed(bytes) {
            return of_writer(self.avro.get(&id)?.key?);
        }
        let payload = self.keys.find(bytes).ok()?;
        if let Some(writer) = payload.schema {
            return of_writer(writer);
        }
        let mut cursor = Cursor::new(bytes, payload.at);
        let mut names = Vec::new();
        let mut more = cursor.open_object().ok()?;
        while more {
            let name = cursor.name().ok()?;
            names.push(cursor.text(name).ok()?.into_owned());
            cursor.skip().ok()?;
            more = cursor.next_field().ok()?;
        }
        Some(names)
    }

    fn read_key(&mut self, bytes: &[u8]) -> Result<Option<Key>, ScanError> {
        if let Some((id, at)) = framed(bytes)? {
            let writer = self.avro_key(id)?;
            self.plan_key(writer, None)?;
            let (plan, forms, key_writers) = self.key_plan(writer)?;
            let Some(Layout::AvroKey(layout)) =
                key_writers.get(writer).map(|writer| &writer.layout)
            else {
                return Err(no_key().into());
            };
            return Ok(Some(plan.read_avro(layout.values(bytes, at), forms, false)?));
        }
        let writers = &mut self.key_writers;
        let payload =
            self.keys.payload(bytes, |schema| Ok(learn(writers, Writer::of_key(schema)?)))?;
        let mut cursor = Cursor::new(bytes, payload.at);
        if cursor.null()? {
            return Ok(None);
        }
        let writer = payload.schema.unwrap_or(UNTOLD);
        self.plan_key(writer, Some(cursor))?;
        let (plan, forms, _) = self.key_plan(writer)?;
        let key = plan.read_json(&mut cursor, &forms.forms)?;
        end(cursor, payload)?;
        Ok(Some(key))
    }

    /// The key's plan, how a writer writes it, and all writers.
    fn key_plan(&mut self, writer: usize) -> Result<(&mut KeyPlan, &KeyForms, &[Writer]), Reject> {
        let widen = self.may_widen();
        let Self { key, key_forms, key_writers, options, .. } = self;
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
            None => slot.insert(plan.forms(written, writer != UNTOLD, options, widen)?),
        };
        Ok((plan, forms, key_writers))
    }

    /// True when the key's columns may become wider: always before there is a table.
    fn may_widen(&self) -> bool {
        self.options.evolution.widen || self.schema.is_none()
    }

    /// Settles the key's columns by the first key: as its writer has them, or by its JSON at `cursor`.
    fn plan_key(&mut self, writer: usize, cursor: Option<Cursor<'_>>) -> Result<(), Reject> {
        if self.key.is_none() {
            let columns = match cursor {
                Some(cursor) if writer == UNTOLD => self.untold_key(cursor)?,
                _ => self.told_key(writer)?,
            };
            self.key = Some(KeyPlan::of_fields(columns)?);
        }
        Ok(())
    }

    /// The key's columns as a writer has them.
    fn told_key(&self, writer: usize) -> Result<Vec<(String, Mapped)>, Reject> {
        let fields = self.key_writers.get(writer).map(|writer| writer.fields.as_slice());
        // A key's schema does not tell its source, the schemas of values do.
        let elapsed = self.writers.iter().any(|writer| writer.times == Times::Elapsed);
        let times = if elapsed { Times::Elapsed } else { Times::OfDay };
        let column = |field: &Field| {
            let name = if field.name.is_empty() { self.bare_key()? } else { field.name.clone() };
            let mapped = self.options.told(&name, &field.described.map(times))?;
            Ok((name, mapped))
        };
        fields.unwrap_or_default().iter().map(column).collect()
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
            let name = cursor.name()?;
            let name = cursor.text(name)?.into_owned();
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
                format!("the type of key column {name} must be declared"),
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
    pub(super) fn image_key(
        &mut self,
        value: &[u8],
        writer: usize,
        heading: &Heading,
    ) -> Result<Key, Reject> {
        let image = heading.after.as_ref().or(heading.before.as_ref());
        let image = image.filter(|_| !self.options.declared_key.is_empty()).ok_or_else(no_key)?;
        if self.key.is_none() {
            self.key = Some(KeyPlan::of_fields(self.image_columns(value, writer, image.start)?)?);
        }
        let key = self.key_in_row(value, writer, image.start)?;
        if let (Some(before), Some(_)) = (&heading.before, &heading.after)
            && self.key_in_row(value, writer, before.start)? != key
        {
            return Err(Reject::new(
                "key_changed",
                "an update of a record without a key changes the row's key",
            ));
        }
        Ok(key)
    }

    /// The values that a row has in the key's columns.
    fn key_in_row(&mut self, value: &[u8], writer: usize, at: usize) -> Result<Key, Reject> {
        let widen = self.may_widen();
        let written = self.writers.get(writer).ok_or_else(no_key)?;
        let plan = self.key.as_mut().ok_or_else(no_key)?;
        let forms = plan.forms(written, !is_untold(writer), &self.options, widen)?;
        match &written.layout {
            Layout::AvroRow(layout) => plan.read_avro(layout.values(value, at), &forms, true),
            _ => plan.read_image(Cursor::new(value, at), &forms.forms),
        }
    }

    /// True when the row has the record's key in itself, or the columns that are declared to be the key. A record
    /// for which it is false settles nothing.
    pub(super) fn holds_its_key(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        writer: usize,
        at: usize,
    ) -> Result<bool, ScanError> {
        let settled = self.key.is_some();
        let conflict = self.key.as_ref().and_then(|key| key.conflict.clone());
        let key = match record.key {
            Some(key) if !self.options.key_in_rows => self.record_key(key),
            _ => Ok(None),
        };
        let holds = match key {
            Ok(Some(key)) => self.key_in_row(value, writer, at) == Ok(key),
            Ok(None) => !self.options.declared_key.is_empty(),
            Err(ScanError::Reject(_) | ScanError::KeyChanged(_)) => false,
            Err(needs) => return Err(needs),
        };
        if !holds && !settled {
            self.key = None;
            self.key_forms.clear();
        }
        if let Some(key) = self.key.as_mut().filter(|_| !holds) {
            key.conflict = conflict;
        }
        Ok(holds)
    }

    /// The declared key's columns as the writer of a row has them, as they are declared, or as the row at `at` lets
    /// infer.
    fn image_columns(
        &self,
        value: &[u8],
        writer: usize,
        at: usize,
    ) -> Result<Vec<(String, Mapped)>, Reject> {
        let told = self.writers.get(writer).filter(|_| !is_untold(writer));
        let column = |name: &String| {
            let Some(writer) = told else {
                let missing = || {
                    Reject::new(
                        "key_mismatch",
                        format!("the row has no column {name}, which is of its key"),
                    )
                };
                let mut cursor = column_of(Cursor::new(value, at), name)?.ok_or_else(missing)?;
                return self.untold_column(name.clone(), &mut cursor);
            };
            let field = writer.field(name);
            let mapped = field.map(|field| self.options.told(name, &field.mapped)).transpose()?;
            let unknown = || {
                Reject::new("no_key", format!("the row has no column {name} that can be of a key"))
            };
            Ok((name.clone(), mapped.ok_or_else(unknown)?))
        };
        self.options.declared_key.iter().map(column).collect()
    }

    /// Takes key columns that the row does not have from the record's key.
    pub(super) fn fill_key(
        &self,
        filler: &mut Filler<'_>,
        index: usize,
        row: &Row<'_>,
        schema: &TableSchema,
    ) -> Result<(), Reject> {
        for name in schema.key() {
            let missing = schema.index_of(name).filter(|column| !filler.has(*column, index));
            if let (Some(column), Some(key)) = (missing, row.key) {
                self.fill_from_key(filler, index, (name, column), key)?;
            }
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
        let (writer, at) = match framed(key)? {
            Some((id, at)) => {
                (self.avro.get(&id).and_then(|known| known.key).ok_or_else(no_key)?, at)
            }
            None => {
                let payload = self.keys.find(key)?;
                (payload.schema.unwrap_or(UNTOLD), payload.at)
            }
        };
        let plan = self.key.as_ref().ok_or_else(no_key)?;
        let forms = self.key_forms.get(writer).and_then(Option::as_ref).ok_or_else(no_key)?;
        let place = plan.columns.iter().position(|column| column.name == name);
        let form = place.and_then(|place| forms.forms.get(place)).ok_or_else(no_key)?;
        if let Some(Layout::AvroKey(layout)) =
            self.key_writers.get(writer).map(|writer| &writer.layout)
        {
            let mut values = layout.values(key, at);
            for _ in 0..place.and_then(|place| forms.places.get(place)).copied().unwrap_or(0) {
                values.next()?;
            }
            let value = values.next()?;
            let raw = value.as_ref().map_or(Raw::Null, Scalar::as_raw);
            return filler.put(index, column, form, raw, false);
        }
        let mut cursor = Cursor::new(key, at);
        if cursor.peek()? != b'{' {
            return filler.put(index, column, form, scalar(&mut cursor)?.as_raw(), false);
        }
        let mut more = cursor.open_object()?;
        while more {
            if cursor.name()?.is(name) {
                return filler.put(index, column, form, value(&mut cursor)?.as_raw(), false);
            }
            cursor.skip()?;
            more = cursor.next_field()?;
        }
        Ok(())
    }
}

/// The place of a column's value in the row at the cursor.
fn column_of<'a>(mut cursor: Cursor<'a>, name: &str) -> Result<Option<Cursor<'a>>, Malformed> {
    let mut more = cursor.open_object()?;
    while more {
        if cursor.name()?.is(name) {
            return Ok(Some(cursor));
        }
        cursor.skip()?;
        more = cursor.next_field()?;
    }
    Ok(None)
}

pub(super) fn no_key() -> Reject {
    Reject::new("no_key", "the record has no key, and a table needs one to apply changes by")
}
