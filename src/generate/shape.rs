//! The tables a workload can have: their columns as the source has them.

use crate::schema::{Column, ColumnType};

/// A table of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// 8 narrow columns, keyed by a number.
    Customers,
    /// 30 columns of every kind, keyed by a number.
    Orders,
    /// 6 columns, one of them 1 KB of JSON, keyed by a number.
    Events,
    /// 5 columns, keyed by two texts.
    Stock,
}

/// A column of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceColumn {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) nullable: bool,
}

/// A source type, as Debezium's PostgreSQL connector maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Bool,
    Double,
    Decimal { precision: u8, scale: u8 },
    Date,
    MicroTimestamp,
    ZonedTimestamp,
    Text(Text),
    Json,
}

/// What a text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    FirstName,
    LastName,
    FullName,
    Email,
    Phone,
    OrderNumber,
    Status,
    Currency,
    Street,
    City,
    Zip,
    Country,
    Notes,
    Word,
    Session,
    Warehouse,
    Sku,
}

const fn required(name: &'static str, kind: Kind) -> SourceColumn {
    SourceColumn { name, kind, nullable: false }
}

const fn optional(name: &'static str, kind: Kind) -> SourceColumn {
    SourceColumn { name, kind, nullable: true }
}

const MONEY: Kind = Kind::Decimal { precision: 12, scale: 2 };

const CUSTOMERS: &[SourceColumn] = &[
    required("id", Kind::Int64),
    required("first_name", Kind::Text(Text::FirstName)),
    required("last_name", Kind::Text(Text::LastName)),
    required("email", Kind::Text(Text::Email)),
    optional("phone", Kind::Text(Text::Phone)),
    required("is_active", Kind::Bool),
    required("created_at", Kind::MicroTimestamp),
    optional("updated_at", Kind::ZonedTimestamp),
    optional("segment", Kind::Text(Text::Word)),
];

const ORDERS: &[SourceColumn] = &[
    required("order_id", Kind::Int64),
    required("customer_id", Kind::Int64),
    required("order_number", Kind::Text(Text::OrderNumber)),
    required("status", Kind::Text(Text::Status)),
    required("currency", Kind::Text(Text::Currency)),
    required("subtotal", MONEY),
    optional("discount", MONEY),
    required("tax", MONEY),
    optional("shipping_cost", MONEY),
    required("total", MONEY),
    optional("fx_rate", Kind::Decimal { precision: 18, scale: 6 }),
    required("item_count", Kind::Int32),
    required("priority", Kind::Int32),
    optional("warehouse_id", Kind::Int32),
    required("is_gift", Kind::Bool),
    required("is_paid", Kind::Bool),
    optional("weight_kg", Kind::Double),
    optional("score", Kind::Double),
    optional("ship_name", Kind::Text(Text::FullName)),
    optional("ship_street", Kind::Text(Text::Street)),
    optional("ship_city", Kind::Text(Text::City)),
    optional("ship_zip", Kind::Text(Text::Zip)),
    optional("ship_country", Kind::Text(Text::Country)),
    optional("notes", Kind::Text(Text::Notes)),
    required("order_date", Kind::Date),
    optional("due_date", Kind::Date),
    required("created_at", Kind::MicroTimestamp),
    optional("paid_at", Kind::MicroTimestamp),
    optional("shipped_at", Kind::MicroTimestamp),
    required("updated_at", Kind::ZonedTimestamp),
    optional("channel", Kind::Text(Text::Word)),
];

const EVENTS: &[SourceColumn] = &[
    required("event_id", Kind::Int64),
    required("tenant_id", Kind::Int32),
    required("event_type", Kind::Text(Text::Word)),
    required("occurred_at", Kind::MicroTimestamp),
    optional("session", Kind::Text(Text::Session)),
    required("payload", Kind::Json),
    optional("region", Kind::Text(Text::Country)),
];

const STOCK: &[SourceColumn] = &[
    required("warehouse", Kind::Text(Text::Warehouse)),
    required("sku", Kind::Text(Text::Sku)),
    required("quantity", Kind::Int32),
    optional("remark", Kind::Text(Text::Notes)),
    required("counted_at", Kind::ZonedTimestamp),
    optional("reserved", Kind::Int32),
];

impl Shape {
    /// The table's name in the source.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Orders => "orders",
            Self::Events => "events",
            Self::Stock => "stock",
        }
    }

    /// The shape of the table with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Customers, Self::Orders, Self::Events, Self::Stock]
            .into_iter()
            .find(|shape| shape.name() == name)
    }

    /// Names of the key columns.
    pub fn key(self) -> Vec<&'static str> {
        self.key_columns().iter().map(|column| column.name).collect()
    }

    /// The key columns: always the first ones.
    pub(super) fn key_columns(self) -> &'static [SourceColumn] {
        let keys = if self == Self::Stock { 2 } else { 1 };
        self.all_columns().get(..keys).unwrap_or_default()
    }

    /// Every column, the one that is added half-way last.
    pub(super) fn all_columns(self) -> &'static [SourceColumn] {
        match self {
            Self::Customers => CUSTOMERS,
            Self::Orders => ORDERS,
            Self::Events => EVENTS,
            Self::Stock => STOCK,
        }
    }

    /// The columns of the table before or after one was added.
    pub(super) fn columns(self, widened: bool) -> &'static [SourceColumn] {
        let all = self.all_columns();
        if widened { all } else { all.split_last().map_or(all, |(_, first)| first) }
    }
}

impl SourceColumn {
    /// The lake column that a sink makes of it; without a schema it knows only what JSON tells.
    pub(super) fn lake_column(&self, key: bool, schema: bool) -> Column {
        Column::new(self.name, if schema { self.kind.typed() } else { self.kind.untyped() }, !key)
    }

    /// True when the server may leave an unchanged value out of its log.
    pub(super) fn is_toasted(&self) -> bool {
        matches!(self.kind, Kind::Json | Kind::Text(Text::Notes))
    }
}

impl Kind {
    fn typed(self) -> ColumnType {
        match self {
            Self::Int32 => ColumnType::Int32,
            Self::Int64 => ColumnType::Int64,
            Self::Bool => ColumnType::Boolean,
            Self::Double => ColumnType::Float64,
            Self::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
            Self::Date => ColumnType::Date,
            Self::MicroTimestamp => ColumnType::Timestamp,
            Self::ZonedTimestamp => ColumnType::TimestampTz,
            Self::Text(_) | Self::Json => ColumnType::String,
        }
    }

    fn untyped(self) -> ColumnType {
        match self {
            Self::Int32 | Self::Int64 | Self::Date | Self::MicroTimestamp => ColumnType::Int64,
            Self::Bool => ColumnType::Boolean,
            Self::Double => ColumnType::Float64,
            Self::Decimal { .. } | Self::ZonedTimestamp | Self::Text(_) | Self::Json => {
                ColumnType::String
            }
        }
    }
}
