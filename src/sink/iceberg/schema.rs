//! Schemas and partitionings between the vocabulary and Iceberg.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::spec::{
    ListType, NestedField, NestedFieldRef, PartitionSpec, PrimitiveType, Schema, Transform as Ice,
    Type, UnboundPartitionField, UnboundPartitionSpec,
};
use serde::{Deserialize, Serialize};

use super::fault;
use super::known::{KEY, NAMES};
use crate::error::{Error, Result};
use crate::schema::{Column, ColumnType, ListElement, TableSchema};
use crate::table::partition::{PartitionField, Partitioning, Transform};

/// Id of the first partition field of a table.
const FIRST_PARTITION_ID: i32 = 1000;

/// The Iceberg schema; columns that `known` has keep what only Iceberg knows of them (comments, defaults).
pub(super) fn to_iceberg(schema: &TableSchema, id: i32, known: Option<&Schema>) -> Result<Schema> {
    let fields = schema.columns().iter().map(|column| {
        let known = known.and_then(|known| known.field_by_id(column.id));
        evolved(field(column), known).map(Arc::new)
    });
    Schema::builder()
        .with_schema_id(id)
        .with_fields(fields.collect::<Result<Vec<_>>>()?)
        .with_identifier_field_ids(identifiers(schema))
        .build()
        .map_err(|e| fault::iceberg("cannot make an Iceberg schema of the table's columns", e))
}

/// Iceberg's identifier fields: the key, if all of it may be one (neither optional nor a float). Part of a key
/// identifies nothing.
fn identifiers(schema: &TableSchema) -> Vec<i32> {
    let fit = |column: &Column| {
        !column.nullable
            && !matches!(column.ty, ColumnType::Float32 | ColumnType::Float64 | ColumnType::List(_))
    };
    if schema.key_columns().all(fit) {
        schema.key_columns().map(|column| column.id).collect()
    } else {
        Vec::new()
    }
}

/// The field as it becomes of the one that is `known`.
fn evolved(field: NestedField, known: Option<&NestedFieldRef>) -> Result<NestedField> {
    let Some(known) = known else { return Ok(field) };
    let has_default = known.initial_default.is_some() || known.write_default.is_some();
    if has_default && known.field_type != field.field_type {
        return Err(Error::refused(format!(
            "column {} of the table has a default value and cannot get another type",
            field.name
        ))
        .hint("change the column back at the source, or give the topic another table"));
    }
    Ok(NestedField {
        name: field.name,
        required: field.required,
        field_type: field.field_type,
        ..known.as_ref().clone()
    })
}

fn field(column: &Column) -> NestedField {
    NestedField::new(column.id, &column.name, ty(&column.ty), !column.nullable)
}

fn ty(ty: &ColumnType) -> Type {
    Type::Primitive(match ty {
        ColumnType::Boolean => PrimitiveType::Boolean,
        ColumnType::Int32 => PrimitiveType::Int,
        ColumnType::Int64 => PrimitiveType::Long,
        ColumnType::Float32 => PrimitiveType::Float,
        ColumnType::Float64 => PrimitiveType::Double,
        ColumnType::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        ColumnType::String => PrimitiveType::String,
        ColumnType::Binary => PrimitiveType::Binary,
        ColumnType::Date => PrimitiveType::Date,
        ColumnType::Time => PrimitiveType::Time,
        ColumnType::Timestamp => PrimitiveType::Timestamp,
        ColumnType::TimestampTz => PrimitiveType::Timestamptz,
        ColumnType::List(element) => {
            let field = NestedField::list_element(element.id, self::ty(&element.ty), false);
            return Type::List(ListType::new(Arc::new(field)));
        }
    })
}

/// Iceberg's name of a column's type.
pub fn type_name(column: &ColumnType) -> String {
    match column {
        ColumnType::List(element) => format!("list<{}>", type_name(&element.ty)),
        primitive => ty(primitive).to_string().replace(' ', ""),
    }
}

/// What Iceberg has no place for of columns, in a table property; empty when every column has one name alone, and none
/// was dropped or is about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    /// True when the columns' names in data files are theirs for ever.
    #[serde(default)]
    mapped: bool,
    /// Field ids of columns that are gone for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<i32>,
    /// By field id.
    #[serde(default)]
    columns: BTreeMap<i32, ColumnNames>,
}

/// The other names of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ColumnNames {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<String>,
    /// The name in data files, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    physical: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent_since: Option<i64>,
}

impl Names {
    pub(super) fn of(schema: &TableSchema) -> Self {
        let names = |column: &Column| {
            let physical = column.physical.clone().filter(|physical| *physical != column.name);
            let (former, absent_since) = (column.former.clone(), column.absent_since);
            let names = ColumnNames { former, physical, absent_since };
            (names != ColumnNames::default()).then_some((column.id, names))
        };
        Self {
            mapped: schema.is_mapped(),
            dropped: schema.dropped().to_vec(),
            columns: schema.columns().iter().filter_map(names).collect(),
        }
    }

    fn give(&self, column: Column) -> Column {
        let ColumnNames { former, physical, absent_since } =
            self.columns.get(&column.id).cloned().unwrap_or_default();
        let physical = self.mapped.then(|| physical.unwrap_or_else(|| column.name.clone()));
        Column { former, physical, absent_since, ..column }
    }
}

/// The table properties for what Iceberg's schema has no place for.
pub(super) fn properties(
    schema: &TableSchema,
    known: &HashMap<String, String>,
) -> Result<HashMap<String, String>> {
    let failed = |e| Error::internal("cannot write a table property as JSON").because(e);
    let key = serde_json::to_string(schema.key()).map_err(failed)?;
    let mut properties = HashMap::from([(KEY.to_owned(), key)]);
    let names = Names::of(schema);
    if names != Names::default() || known.contains_key(NAMES) {
        let names = serde_json::to_string(&names).map_err(failed)?;
        properties.insert(NAMES.to_owned(), names);
    }
    Ok(properties)
}

/// The table's schema as the vocabulary tells it; refused where the vocabulary has no word for a type.
pub(super) fn from_iceberg(
    schema: &Schema,
    key: Vec<String>,
    last_id: i32,
    names: &Names,
) -> Result<TableSchema> {
    let column = |field: &NestedFieldRef| {
        let ty = column_type(&field.field_type).ok_or_else(|| {
            let text = format!("column {} has the type {}", field.name, field.field_type);
            Error::refused(format!("cannot write to the table: its {text}"))
                .hint("drop the column, or give the topic another table")
        })?;
        let column = Column::new(&field.name, ty, !field.required);
        Ok(names.give(Column { id: field.id, ..column }))
    };
    let columns = schema.as_struct().fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    if let Some(name) = key.iter().find(|name| columns.iter().all(|column| column.name != **name)) {
        return Err(Error::refused(format!(
            "cannot write to the table: its key column {name} is gone"
        ))
        .hint("name the column back, or give the topic another table"));
    }
    Ok(TableSchema::from_parts(columns, key, last_id).with_dropped(names.dropped.clone()))
}

fn column_type(ty: &Type) -> Option<ColumnType> {
    Some(match ty {
        Type::Primitive(PrimitiveType::Boolean) => ColumnType::Boolean,
        Type::Primitive(PrimitiveType::Int) => ColumnType::Int32,
        Type::Primitive(PrimitiveType::Long) => ColumnType::Int64,
        Type::Primitive(PrimitiveType::Float) => ColumnType::Float32,
        Type::Primitive(PrimitiveType::Double) => ColumnType::Float64,
        Type::Primitive(PrimitiveType::Decimal { precision, scale }) => ColumnType::Decimal {
            precision: u8::try_from(*precision).ok()?,
            scale: u8::try_from(*scale).ok()?,
        },
        Type::Primitive(PrimitiveType::String) => ColumnType::String,
        Type::Primitive(PrimitiveType::Binary) => ColumnType::Binary,
        Type::Primitive(PrimitiveType::Date) => ColumnType::Date,
        Type::Primitive(PrimitiveType::Time) => ColumnType::Time,
        Type::Primitive(PrimitiveType::Timestamp) => ColumnType::Timestamp,
        Type::Primitive(PrimitiveType::Timestamptz) => ColumnType::TimestampTz,
        Type::List(list) => {
            let element = &list.element_field;
            ColumnType::List(Box::new(ListElement {
                id: element.id,
                ty: column_type(&element.field_type)?,
            }))
        }
        _ => return None,
    })
}

/// The Iceberg partition spec of a new table with `schema`. Fields have the ids that Iceberg would assign: Nessie wants
/// them given.
pub(super) fn to_spec(
    partitioning: &Partitioning,
    schema: &Schema,
) -> Result<UnboundPartitionSpec> {
    let fields = partitioning.fields.iter().zip(FIRST_PARTITION_ID..).map(|(field, id)| {
        let source_id = schema.field_id_by_name(&field.column).ok_or_else(|| {
            Error::invalid(format!("cannot partition by {}: no such column", field.column))
        })?;
        let (name, transform) = (field.name.clone(), transform(field.transform));
        Ok(UnboundPartitionField { source_id, field_id: Some(id), name, transform })
    });
    let spec = UnboundPartitionSpec::builder()
        .with_spec_id(0)
        .add_partition_fields(fields.collect::<Result<Vec<_>>>()?)
        .map_err(|e| fault::iceberg("cannot partition the table", e))?;
    Ok(spec.build())
}

fn transform(transform: Transform) -> Ice {
    match transform {
        Transform::Identity => Ice::Identity,
        Transform::Bucket(buckets) => Ice::Bucket(buckets),
        Transform::Truncate(width) => Ice::Truncate(width),
        Transform::Year => Ice::Year,
        Transform::Month => Ice::Month,
        Transform::Day => Ice::Day,
        Transform::Hour => Ice::Hour,
    }
}

/// The partitioning of a spec; refused where the vocabulary has no word for a transform.
pub(super) fn from_spec(spec: &PartitionSpec, schema: &Schema) -> Result<Partitioning> {
    let field = |field: &iceberg::spec::PartitionField| {
        let column = schema.name_by_field_id(field.source_id)?.to_owned();
        let transform = match field.transform {
            Ice::Identity => Transform::Identity,
            Ice::Bucket(buckets) => Transform::Bucket(buckets),
            Ice::Truncate(width) => Transform::Truncate(width),
            Ice::Year => Transform::Year,
            Ice::Month => Transform::Month,
            Ice::Day => Transform::Day,
            Ice::Hour => Transform::Hour,
            Ice::Void | Ice::Unknown => return None,
        };
        Some(PartitionField { column, transform, name: field.name.clone() })
    };
    let fields = spec.fields().iter().map(|found| {
        field(found).ok_or_else(|| {
            Error::refused(format!(
                "cannot write to the table: its partition field {} ({}) is not one the sink can fill",
                found.name, found.transform
            ))
        })
    });
    Ok(Partitioning { fields: fields.collect::<Result<_>>()? })
}
