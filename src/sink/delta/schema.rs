//! Between a [`TableSchema`] and the columns of a Delta table.
//!
//! Delta's schema has the table's columns, each with its field ids in the field's metadata, followed by the partition
//! columns that a transform makes (`ts_day`, `id_bucket`), which are no columns of the table schema.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::protocol::{DROPPED_IDS, KEY, LAST_ID, Metadata, PARTITIONING, PARTITIONS};
use super::values::partition_type;
use crate::error::{Error, Result};
use crate::schema::{Column, ColumnType, ListElement, TableSchema};
use crate::table::partition::{Partitioning, Transform};

/// Field metadata that holds the column's field id.
const ID: &str = "cdc-sink.id";
/// Field metadata that holds the field ids of list elements, outermost first, separated by commas.
const ELEMENT_IDS: &str = "cdc-sink.element-ids";
/// Field metadata that lists the names that the column had.
const FORMER_NAMES: &str = "cdc-sink.former-names";
/// Field metadata that tells since when the source does not have the column, milliseconds since the epoch.
const ABSENT_SINCE: &str = "cdc-sink.absent-since";
/// Field metadata of the feature `columnMapping`: the field's id, and its name in data files.
const MAPPED_ID: &str = "delta.columnMapping.id";
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
/// Ids of the partition columns that a transform makes, in a table that maps its columns: they are no columns of the
/// table schema, whose ids count up from 1.
const GENERATED_IDS: i64 = 1_000_000_000;

/// Field metadata that lists the types that the field had (feature `typeWidening`).
pub(super) const TYPE_CHANGES: &str = "delta.typeChanges";

/// One change of a field's type, as Delta records it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeChange {
    from_type: Value,
    to_type: Value,
    /// Where inside of the field: `element` for a list's elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    field_path: Option<String>,
}

/// A field of Delta's schema (`StructField` of the protocol).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(rename = "type")]
    ty: Value,
    pub(super) nullable: bool,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
}

impl Field {
    fn new(name: &str, ty: Value, nullable: bool) -> Self {
        Self { name: name.to_owned(), ty, nullable, metadata: Map::new() }
    }

    pub(super) fn holds_timestamp_ntz(&self) -> bool {
        fn holds(ty: &Value) -> bool {
            ty == "timestamp_ntz" || ty.get("elementType").is_some_and(holds)
        }
        holds(&self.ty)
    }

    /// True when data files may have another name for the field.
    pub(super) fn is_mapped(&self) -> bool {
        self.metadata.contains_key(PHYSICAL_NAME)
    }

    /// The id that column mapping gives the field, and the highest inside of it.
    pub(super) fn mapped_ids(&self) -> impl Iterator<Item = i64> {
        let elements = self.metadata.get(ELEMENT_IDS).and_then(Value::as_str).unwrap_or_default();
        let own = self.metadata.get(MAPPED_ID).and_then(Value::as_i64);
        own.into_iter().chain(elements.split(',').filter_map(|id| id.parse().ok()))
    }

    /// The column's field id: ours, or the one that another writer's column mapping gave it.
    fn id(&self, mapped: bool) -> Option<i32> {
        let id = |key| self.metadata.get(key).and_then(Value::as_i64);
        let id = id(ID).or_else(|| id(MAPPED_ID).filter(|_| mapped))?;
        i32::try_from(id).ok()
    }

    /// Notes what column mapping has to know.
    fn map(&mut self, id: i64, physical: &str) {
        self.metadata.insert(MAPPED_ID.to_owned(), json!(id));
        self.metadata.insert(PHYSICAL_NAME.to_owned(), json!(physical));
    }

    /// True when the field had another type before. Older data files have it still.
    pub(super) fn was_widened(&self) -> bool {
        self.metadata.contains_key(TYPE_CHANGES)
    }

    /// True when every type that the field had became the next in a way that this writer takes part in.
    pub(super) fn was_widened_as_known(&self) -> bool {
        let Some(changes) = self.metadata.get(TYPE_CHANGES) else { return true };
        let known = |change: &TypeChange| {
            let ty = |ty| match decode_type(ty, &mut || 0) {
                // Delta's smaller integers: the files have them as 32 bits.
                None if matches!(ty.as_str(), Some("byte" | "short")) => Some(ColumnType::Int32),
                ty => ty,
            };
            match (ty(&change.from_type), ty(&change.to_type)) {
                (Some(from), Some(to)) => to.extends(&from),
                _ => false,
            }
        };
        Vec::<TypeChange>::deserialize(changes).is_ok_and(|changes| changes.iter().all(known))
    }

    /// Gives the field the wider type `ty`, which is `encoded` in Delta, and notes the one it had.
    fn widen(&mut self, ty: &ColumnType, encoded: Value) -> Result<()> {
        let had = decode_type(&self.ty, &mut || 0).filter(|had| ids_aside(ty).extends(had));
        let Some(had) = had else {
            return Err(Error::refused(format!(
                "column {} of the Delta table is {} and cannot become {encoded}",
                self.name, self.ty
            )));
        };
        let (mut from, mut to) = (&had, ty);
        let mut path = Vec::new();
        while let (ColumnType::List(a), ColumnType::List(b)) = (from, to) {
            path.push("element");
            (from, to) = (&a.ty, &b.ty);
        }
        let change = TypeChange {
            from_type: encode_type(from, &self.name)?,
            to_type: encode_type(to, &self.name)?,
            field_path: (!path.is_empty()).then(|| path.join(".")),
        };
        let changes = self.metadata.entry(TYPE_CHANGES).or_insert_with(|| json!([]));
        if let Value::Array(changes) = changes {
            changes.push(json!(change));
        }
        self.ty = encoded;
        Ok(())
    }
}

/// The type with the ids of list elements left out.
fn ids_aside(ty: &ColumnType) -> ColumnType {
    match ty {
        ColumnType::List(element) => {
            ColumnType::List(Box::new(ListElement { id: 0, ty: ids_aside(&element.ty) }))
        }
        other => other.clone(),
    }
}

#[derive(Serialize, Deserialize)]
struct Struct {
    #[serde(rename = "type")]
    ty: String,
    fields: Vec<Field>,
}

/// The fields of a schema string.
pub(super) fn fields(schema_string: &str) -> Result<Vec<Field>> {
    let parsed: Struct = serde_json::from_str(schema_string)
        .map_err(|e| Error::data("the table's schema cannot be read").because(e))?;
    Ok(parsed.fields)
}

/// The schema string of fields.
pub(super) fn schema_string(fields: Vec<Field>) -> Result<String> {
    serde_json::to_string(&Struct { ty: "struct".to_owned(), fields })
        .map_err(|e| Error::internal("cannot write the table's schema").because(e))
}

/// The Delta fields of `schema`. Fields that `existing` has keep their place and what else their metadata says, under
/// another name too; columns it does not have come last. A column goes only where data files have names of their own for
/// columns; a type can only become wider.
pub(super) fn encode(
    schema: &TableSchema,
    partitioning: &Partitioning,
    existing: &[Field],
) -> Result<Vec<Field>> {
    let mapped = schema.is_mapped();
    let mut fields = Vec::with_capacity(existing.len());
    let mut known = HashSet::new();
    for field in existing {
        let generated = is_generated(partitioning, &field.name);
        let id = field.id(mapped);
        let same = |column: &&Column| match id {
            Some(id) => column.id == id,
            None => column.name == field.name,
        };
        match schema.columns().iter().find(same).filter(|_| !generated) {
            Some(column) => {
                known.insert(column.id);
                fields.push(of_column(field.clone(), column)?);
            }
            None if generated => fields.push(field.clone()),
            None if mapped && id.is_some_and(|id| schema.dropped().contains(&id)) => {}
            None => {
                return Err(Error::refused(format!(
                    "column {} cannot be dropped from a Delta table",
                    field.name
                )));
            }
        }
    }
    for column in schema.columns().iter().filter(|column| !known.contains(&column.id)) {
        let ty = encode_type(&column.ty, &column.name)?;
        fields.push(of_column(Field::new(&column.name, ty, column.nullable), column)?);
    }
    for partition in partitioning.fields.iter().filter(|p| p.transform != Transform::Identity) {
        if fields.iter().all(|field| field.name != partition.name) {
            let ty = encode_type(&partition_type(partition, schema)?, &partition.name)?;
            fields.push(Field::new(&partition.name, ty, true));
        }
    }
    if mapped {
        let unmapped = fields.iter_mut().filter(|field| !field.is_mapped());
        for (field, id) in unmapped.zip(GENERATED_IDS..) {
            let name = field.name.clone();
            field.map(id, &name);
        }
    }
    unique_names(&fields)?;
    Ok(fields)
}

/// Delta's names differ in more than case.
fn unique_names(fields: &[Field]) -> Result<()> {
    let mut names = HashSet::new();
    match fields.iter().find(|field| !names.insert(field.name.to_lowercase())) {
        Some(field) => Err(Error::refused(format!(
            "a Delta table cannot have two columns named {} (upper and lower case count as one)",
            field.name
        ))),
        None => Ok(()),
    }
}

/// The field as its column has it: names, type, nullability, ids.
fn of_column(mut field: Field, column: &Column) -> Result<Field> {
    let ty = encode_type(&column.ty, &column.name)?;
    if ty != field.ty {
        field.widen(&column.ty, ty)?;
    }
    field.name.clone_from(&column.name);
    field.nullable = column.nullable;
    if let Some(physical) = &column.physical {
        field.map(i64::from(column.id), physical);
    }
    match column.absent_since {
        Some(since) => field.metadata.insert(ABSENT_SINCE.to_owned(), json!(since)),
        None => field.metadata.remove(ABSENT_SINCE),
    };
    if !column.former.is_empty() {
        field.metadata.insert(FORMER_NAMES.to_owned(), json!(column.former));
    }
    field.metadata.insert(ID.to_owned(), json!(column.id));
    let mut elements = Vec::new();
    let mut ty = &column.ty;
    while let ColumnType::List(element) = ty {
        elements.push(element.id.to_string());
        ty = &element.ty;
    }
    if !elements.is_empty() {
        field.metadata.insert(ELEMENT_IDS.to_owned(), json!(elements.join(",")));
    }
    Ok(field)
}

fn encode_type(ty: &ColumnType, column: &str) -> Result<Value> {
    Ok(match ty {
        ColumnType::Boolean => json!("boolean"),
        ColumnType::Int32 => json!("integer"),
        ColumnType::Int64 => json!("long"),
        ColumnType::Float32 => json!("float"),
        ColumnType::Float64 => json!("double"),
        ColumnType::Decimal { precision, scale } => json!(format!("decimal({precision},{scale})")),
        ColumnType::String => json!("string"),
        ColumnType::Binary => json!("binary"),
        ColumnType::Date => json!("date"),
        ColumnType::Timestamp => json!("timestamp_ntz"),
        ColumnType::TimestampTz => json!("timestamp"),
        ColumnType::List(element) => {
            json!({"type": "array", "elementType": encode_type(&element.ty, column)?, "containsNull": true})
        }
        ColumnType::Time => {
            return Err(Error::internal(format!(
                "column {column} is a time of day, which Delta does not have"
            )));
        }
    })
}

/// Delta's name of a column's type, with Delta among the table's formats.
pub fn type_name(ty: &ColumnType) -> String {
    match (ty.for_delta(), encode_type(&ty.for_delta(), "")) {
        (ColumnType::List(element), _) => format!("array<{}>", type_name(&element.ty)),
        (_, Ok(Value::String(name))) => name,
        (ty, _) => format!("{ty:?}"),
    }
}

/// What a table's metadata says about its schema.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) schema: TableSchema,
    pub(super) partitioning: Partitioning,
    /// False when someone else added columns: their field ids are not stored in the table yet.
    pub(super) ids_stored: bool,
}

/// The table schema and partitioning of a table's metadata.
pub(super) fn decode(metadata: &Metadata, fields: &[Field]) -> Result<Decoded> {
    let partitioning: Partitioning = metadata.stored(PARTITIONING)?;
    let key: Vec<String> = metadata.stored(KEY)?;
    let mut last_id: i32 = metadata.stored(LAST_ID)?;
    let names = partitioning.fields.iter().map(|field| &field.name);
    if !metadata.partition_columns.iter().eq(names) {
        return Err(Error::refused("the table's partition columns are not those cdc-sink gave it"));
    }
    let mapped = metadata.maps_columns();
    let mut columns = Vec::with_capacity(fields.len());
    let mut ids_stored = true;
    for field in fields.iter().filter(|field| !is_generated(&partitioning, &field.name)) {
        ids_stored &= field.metadata.contains_key(ID);
        if mapped {
            check_mapping(field)?;
        }
        let id = match field.id(mapped) {
            Some(id) => {
                last_id = last_id.max(id);
                id
            }
            None => next(&mut last_id),
        };
        columns.push((id, field));
    }
    let columns: Vec<Column> = columns
        .into_iter()
        .map(|(id, field)| {
            let text = field.metadata.get(ELEMENT_IDS).and_then(Value::as_str).unwrap_or_default();
            let mut ids = text.split(',').filter_map(|id| id.parse().ok());
            let mut element_id = || ids.next().unwrap_or_else(|| next(&mut last_id));
            let ty = decode_type(&field.ty, &mut element_id).ok_or_else(|| {
                Error::refused(format!(
                    "column {} of the table has a type cdc-sink does not know: {}",
                    field.name, field.ty
                ))
            })?;
            let former = field.metadata.get(FORMER_NAMES).map(Vec::deserialize).transpose();
            let former = former.map_err(|e| {
                let what = format!("the former names of column {} cannot be read", field.name);
                Error::data(what).because(e)
            })?;
            let physical = field.metadata.get(PHYSICAL_NAME).and_then(Value::as_str);
            Ok(Column {
                id,
                former: former.unwrap_or_default(),
                physical: physical.filter(|_| mapped).map(str::to_owned),
                absent_since: field.metadata.get(ABSENT_SINCE).and_then(Value::as_i64),
                ..Column::new(&field.name, ty, field.nullable)
            })
        })
        .collect::<Result<_>>()?;
    if let Some(missing) =
        key.iter().find(|name| columns.iter().all(|column| column.name != **name))
    {
        return Err(Error::refused(format!(
            "the table has no column {missing}, which its key needs"
        )));
    }
    let partitions = metadata.configuration.get(PARTITIONS).and_then(|count| count.parse().ok());
    let dropped = match metadata.configuration.contains_key(DROPPED_IDS) {
        true => metadata.stored(DROPPED_IDS)?,
        false => Vec::new(),
    };
    let schema = TableSchema::from_parts(columns, key, last_id)
        .with_dropped(dropped)
        .with_partitions(partitions);
    Ok(Decoded { schema, partitioning, ids_stored })
}

/// Data files have our ids: column mapping must not have others.
fn check_mapping(field: &Field) -> Result<()> {
    let id = |key| field.metadata.get(key).and_then(Value::as_i64);
    if !field.is_mapped() || id(ID).is_some_and(|own| id(MAPPED_ID) != Some(own)) {
        return Err(Error::refused(format!(
            "column {} of the table has another id in its column mapping than in the data files",
            field.name
        ))
        .hint("let only cdc-sink switch column mapping on; restore the version before"));
    }
    Ok(())
}

fn next(last_id: &mut i32) -> i32 {
    *last_id += 1;
    *last_id
}

/// True for a partition column that a transform makes.
fn is_generated(partitioning: &Partitioning, name: &str) -> bool {
    partitioning
        .fields
        .iter()
        .any(|field| field.name == name && field.transform != Transform::Identity)
}

fn decode_type(ty: &Value, element_id: &mut impl FnMut() -> i32) -> Option<ColumnType> {
    if ty.get("type").is_some_and(|outer| outer == "array") {
        let id = element_id();
        let element = decode_type(ty.get("elementType")?, element_id)?;
        return Some(ColumnType::List(Box::new(ListElement { id, ty: element })));
    }
    Some(match ty.as_str()? {
        "boolean" => ColumnType::Boolean,
        "integer" => ColumnType::Int32,
        "long" => ColumnType::Int64,
        "float" => ColumnType::Float32,
        "double" => ColumnType::Float64,
        "string" => ColumnType::String,
        "binary" => ColumnType::Binary,
        "date" => ColumnType::Date,
        "timestamp_ntz" => ColumnType::Timestamp,
        "timestamp" => ColumnType::TimestampTz,
        decimal => {
            let digits = decimal.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = digits.split_once(',')?;
            ColumnType::Decimal {
                precision: precision.trim().parse().ok()?,
                scale: scale.trim().parse().ok()?,
            }
        }
    })
}
