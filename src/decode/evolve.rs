//! Where values go when the source's columns change their type.

use serde::Deserialize;

use super::types::{holds, type_name};
use super::writer::Writer;
use crate::schema::{Column, ColumnType, TableSchema};

/// What a table does when a column of the source gets another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evolution {
    /// The table's column becomes wider where its formats can do that ([`ColumnType::widened`]).
    pub widen: bool,
    /// What becomes of values that do not fit their column otherwise.
    pub conflict: TypeConflict,
}

/// What becomes of values whose type their column does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TypeConflict {
    /// The table halts.
    #[default]
    Halt,
    /// They go into a column of their own, named after the column and the type (`amount__string`); the column that was
    /// there is null in rows that are written from then on.
    NewColumn,
}

/// The name that the column has now which a writer with the columns `has` calls `name`: that of the column which had the
/// name before the source renamed it, unless a column has it now or the writer has that column's newer name as well.
pub(super) fn present_name<'a>(
    columns: &'a [Column],
    has: impl Fn(&str) -> bool,
    name: &'a str,
) -> &'a str {
    if columns.iter().any(|column| column.name == name) {
        return name;
    }
    let was = |column: &&Column| {
        let newer = column.former.iter().rev().take_while(|former| *former != name);
        column.former.iter().any(|former| former == name)
            && !newer.chain([&column.name]).any(|newer| has(newer))
    };
    columns.iter().find(was).map_or(name, |column| column.name.as_str())
}

/// The same for a writer whose columns are known.
pub(super) fn name_now<'a>(columns: &'a [Column], writer: &Writer, name: &'a str) -> &'a str {
    present_name(columns, |name| writer.field(name).is_some(), name)
}

/// The place among `columns` of values of `ty` of the column `name` of `writer`: the column of that name, or the one that
/// was made for the type when the name's does not hold it. It depends on nothing but the columns, so it is the same
/// after a restart and for a writer from before the change.
pub(super) fn home(
    columns: &[Column],
    writer: &Writer,
    (name, ty): (&str, &ColumnType),
    evolution: Evolution,
) -> Option<usize> {
    let name = name_now(columns, writer, name);
    let place = |name: &str| columns.iter().position(|c| c.name == name && holds(&c.ty, ty));
    place(name).or_else(|| place(&variant(writer, name, ty, evolution)?))
}

/// True for the column `name` and for those that hold its values in other types.
pub(super) fn holds_values_of(column: &Column, name: &str) -> bool {
    column.name == name || column.name == variant_name(name, &column.ty)
}

/// Renames a column, and with it those that hold its values in other types.
pub(super) fn rename(columns: &mut [Column], from: &str, to: &str) {
    let is_free = |name: &str, columns: &[Column]| columns.iter().all(|c| c.name != name);
    for at in 0..columns.len() {
        let Some(Column { name, ty, .. }) = columns.get(at) else { continue };
        let name = match name.as_str() {
            name if name == from => to.to_owned(),
            name if name == variant_name(from, ty) => variant_name(to, ty),
            _ => continue,
        };
        if is_free(&name, &*columns)
            && let Some(column) = columns.get_mut(at)
        {
            column.rename(&name);
        }
    }
}

/// The name of the column for values of `ty` that the column `name` does not hold; none when they may have none, or the
/// source has a column of that name itself.
pub(super) fn variant(
    writer: &Writer,
    name: &str,
    ty: &ColumnType,
    evolution: Evolution,
) -> Option<String> {
    let variant = variant_name(name, ty);
    let free = evolution.conflict == TypeConflict::NewColumn && writer.field(&variant).is_none();
    free.then_some(variant)
}

fn variant_name(name: &str, ty: &ColumnType) -> String {
    let ty = type_name(ty);
    let words = ty.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    format!("{name}__{}", words.collect::<Vec<_>>().join("_"))
}

/// The places of columns that hold one column of the source in several types, family by family.
pub(super) fn families(schema: &TableSchema) -> Vec<Vec<usize>> {
    let columns = schema.columns();
    let mut families: Vec<Vec<usize>> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let of = |base: &Column| column.name == variant_name(&base.name, &column.ty);
        // Only names with the separator are compared with all others.
        let Some(base) = column.name.contains("__").then(|| columns.iter().position(of)).flatten()
        else {
            continue;
        };
        match families.iter_mut().find(|family| family.first() == Some(&base)) {
            Some(family) => family.push(at),
            None => families.push(vec![base, at]),
        }
    }
    families
}
