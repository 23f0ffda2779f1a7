//! From text to a checked filter.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use gantry_proto::limits::{FILTER_BYTES_MAX, FILTER_TERMS_MAX};

use super::{Field, Filter, Literal, Node, Part, Relation, STATES};
use crate::spec::{condition, time_ms};

/// What is wrong with a filter, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct FilterError {
    /// What is wrong and what would be right.
    pub message: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

/// Fields without a part behind a dot, for messages.
const FIELDS: &str = "id, state, name, playbook, version, schedule, parent, root, origin, created, ended, priority, code, submitted_by, label.<name> and attr.<name>";

/// The type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Number,
    Time,
    State,
    Workflow,
    Principal,
    /// Known for each workflow alone.
    Any,
}

impl Field {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "state" => Self::State,
            "name" => Self::Name,
            "playbook" => Self::Playbook,
            "version" => Self::Version,
            "schedule" => Self::Schedule,
            "parent" => Self::Parent,
            "root" => Self::Root,
            "origin" => Self::Origin,
            "created" => Self::Created,
            "ended" => Self::Ended,
            "priority" => Self::Priority,
            "code" => Self::Code,
            "submitted_by" => Self::SubmittedBy,
            _ => return None,
        })
    }

    const fn type_of(&self) -> Type {
        match self {
            Self::Id | Self::Parent | Self::Root | Self::Origin => Type::Workflow,
            Self::State => Type::State,
            Self::Name | Self::Playbook | Self::Schedule | Self::Code | Self::Label(_) => Type::Text,
            Self::Version | Self::Priority => Type::Number,
            Self::Created | Self::Ended => Type::Time,
            Self::SubmittedBy => Type::Principal,
            Self::Attribute(_) => Type::Any,
        }
    }
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let at_start = |message: String| FilterError {
            message,
            line: 1,
            column: 1,
        };
        if text.trim().is_empty() {
            return Err(at_start("the filter is empty; `true` is one that fits all".to_owned()));
        }
        if text.len() > FILTER_BYTES_MAX {
            let message = format!(
                "the filter has {} bytes; at most {FILTER_BYTES_MAX} are allowed",
                text.len()
            );
            return Err(at_start(message));
        }
        if !condition::is_shallow(text) {
            return Err(at_start("brackets and signs nest too deep in the filter".to_owned()));
        }
        let (expression, source) = condition::parser().parse_with_source_info(text).map_err(|errors| {
            let first = errors.errors.first();
            let number = |value: isize| u32::try_from(value).unwrap_or(1).max(1);
            FilterError {
                message: first.map_or_else(
                    || "the filter is no CEL expression".to_owned(),
                    |error| format!("the filter is no CEL expression: {}", error.msg),
                ),
                line: first.map_or(1, |error| number(error.pos.0)),
                column: first.map_or(1, |error| number(error.pos.1)),
            }
        })?;
        let mut reader = Reader { text, source, terms: 0 };
        Ok(Self {
            root: reader.node(&expression)?,
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    source: SourceInfo,
    terms: usize,
}

impl Reader<'_> {
    fn wrong(&self, at: &IdedExpr, message: impl Into<String>) -> FilterError {
        // The beginning of what stands there, not the operator in its middle.
        let mut first = at;
        loop {
            first = match &first.expr {
                Expr::Select(select) => &select.operand,
                Expr::Call(call) => match call.target.as_deref().or_else(|| call.args.first()) {
                    Some(inner)
                        if call.target.is_some() || call.func_name.contains('_') || call.func_name == operators::IN =>
                    {
                        inner
                    }
                    _ => break,
                },
                _ => break,
            };
        }
        let offset = self.source.offset_for(first.id).map_or(0, |(start, _)| start as usize);
        // The parser counts bytes.
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count();
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        let number = |value: usize| u32::try_from(value.saturating_add(1)).unwrap_or(u32::MAX);
        FilterError {
            message: message.into(),
            line: number(line),
            column: number(column),
        }
    }

    fn term(&mut self, at: &IdedExpr) -> Result<(), FilterError> {
        self.terms += 1;
        if self.terms > FILTER_TERMS_MAX {
            return Err(self.wrong(at, format!("a filter has at most {FILTER_TERMS_MAX} comparisons")));
        }
        Ok(())
    }

    fn node(&mut self, at: &IdedExpr) -> Result<Node, FilterError> {
        match &at.expr {
            Expr::Literal(LiteralValue::Boolean(value)) => Ok(Node::Constant(*value.inner())),
            Expr::Select(select) if select.test => {
                self.term(at)?;
                let field = self.selected(at, &select.operand, &select.field)?;
                Ok(Node::Has(field))
            }
            // An attribute that is true or false stands alone.
            Expr::Ident(_) | Expr::Select(_) => {
                self.term(at)?;
                match self.field(at)? {
                    field @ Field::Attribute(_) => Ok(Node::Compare(field, Relation::Equal, Literal::Flag(true))),
                    _ => Err(self.wrong(at, "this is neither true nor false; compare it with something")),
                }
            }
            Expr::Call(call) => self.call(at, call),
            Expr::Comprehension(_) => {
                Err(self.wrong(at, "`all`, `exists`, `map` and `filter` are not known in filters"))
            }
            _ => Err(self.wrong(at, "a filter is true or false for each workflow: write comparisons")),
        }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Result<Node, FilterError> {
        let name = call.func_name.as_str();
        match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, _, [a, b]) => Ok(Node::And(Box::new(self.node(a)?), Box::new(self.node(b)?))),
            (operators::LOGICAL_OR, _, [a, b]) => Ok(Node::Or(Box::new(self.node(a)?), Box::new(self.node(b)?))),
            (operators::LOGICAL_NOT, _, [inner]) => Ok(Node::Not(Box::new(self.node(inner)?))),
            (operators::IN, _, [item, list]) => self.is_in(item, list),
            ("startsWith" | "endsWith" | "contains", Some(target), [part]) => {
                self.term(at)?;
                let field = self.field(target)?;
                if !matches!(field.type_of(), Type::Text | Type::Any) {
                    return Err(self.wrong(target, format!("`{name}` is for texts, and this is none")));
                }
                let Expr::Literal(LiteralValue::String(text)) = &part.expr else {
                    return Err(self.wrong(part, format!("`{name}` takes a text in quotes")));
                };
                let kind = match name {
                    "startsWith" => Part::Start,
                    "endsWith" => Part::End,
                    _ => Part::Anywhere,
                };
                Ok(Node::Part(field, kind, text.inner().to_owned()))
            }
            (_, _, [a, b]) if relation(name).is_some() => {
                self.term(at)?;
                // `relation` was asked just before.
                let relation = relation(name).unwrap_or(Relation::Equal);
                if is_field(a) {
                    self.compare(a, relation, b)
                } else if is_field(b) {
                    self.compare(b, mirrored(relation), a)
                } else {
                    Err(self.wrong(a, "compare a field with a value"))
                }
            }
            _ if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Err(self.wrong(
                at,
                format!("there is no function `{name}` in filters; there are startsWith, endsWith, contains, timestamp and has"),
            )),
            _ => Err(self.wrong(at, "filters compare, and do not reckon: ==, !=, <, <=, >, >=, in, &&, || and !")),
        }
    }

    fn is_in(&mut self, item: &IdedExpr, list: &IdedExpr) -> Result<Node, FilterError> {
        let field = self.field(item)?;
        let Expr::List(list) = &list.expr else {
            return Err(self.wrong(list, "behind `in` stands a list of values: ['failed', 'cancelled']"));
        };
        let mut literals = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            self.term(element)?;
            literals.push(self.literal(&field, element)?);
        }
        Ok(Node::In(field, literals))
    }

    fn compare(&self, field: &IdedExpr, relation: Relation, value: &IdedExpr) -> Result<Node, FilterError> {
        let place = field;
        let field = self.field(field)?;
        let ordered = matches!(field.type_of(), Type::Text | Type::Number | Type::Time | Type::Any);
        if !ordered && !matches!(relation, Relation::Equal | Relation::Unequal) {
            return Err(self.wrong(place, "this has no order; compare it by ==, != or in"));
        }
        let literal = self.literal(&field, value)?;
        if matches!(literal, Literal::Flag(_)) && !matches!(relation, Relation::Equal | Relation::Unequal) {
            return Err(self.wrong(value, "true and false have no order; compare them by == or !="));
        }
        Ok(Node::Compare(field, relation, literal))
    }

    fn field(&self, at: &IdedExpr) -> Result<Field, FilterError> {
        match &at.expr {
            Expr::Ident(name) => Field::of(name).ok_or_else(|| {
                let hint = match name.as_str() {
                    "label" | "attr" => format!("`{name}` needs a name: {name}.team, {name}['cost-centre']"),
                    _ => format!("there is no field `{name}`; there are {FIELDS}"),
                };
                self.wrong(at, hint)
            }),
            Expr::Select(select) => self.selected(at, &select.operand, &select.field),
            Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                match &call.args[1].expr {
                    Expr::Literal(LiteralValue::String(name)) => self.selected(at, &call.args[0], name.inner()),
                    _ => Err(self.wrong(at, "in brackets stands a name in quotes: label['cost-centre']")),
                }
            }
            _ => Err(self.wrong(at, format!("here stands a field: {FIELDS}"))),
        }
    }

    fn selected(&self, at: &IdedExpr, of: &IdedExpr, name: &str) -> Result<Field, FilterError> {
        match &of.expr {
            Expr::Ident(root) if root == "label" => Ok(Field::Label(name.to_owned())),
            Expr::Ident(root) if root == "attr" => Ok(Field::Attribute(name.to_owned())),
            _ => Err(self.wrong(at, "only `label` and `attr` have names behind a dot")),
        }
    }

    /// A value of the field's type.
    fn literal(&self, field: &Field, at: &IdedExpr) -> Result<Literal, FilterError> {
        let value = self.value(at)?;
        let wanted = field.type_of();
        let fits = match (wanted, value) {
            (Type::Any, value) => return Ok(value),
            (Type::Text, Literal::Text(text)) => Some(Literal::Text(text)),
            (Type::Number, Literal::Number(number)) => Some(Literal::Number(number)),
            (Type::Time, Literal::TimeMs(time)) => Some(Literal::TimeMs(time)),
            (Type::Time, Literal::Text(text)) => {
                let time = time_ms(&text).map_err(|message| self.wrong(at, message))?;
                Some(Literal::TimeMs(time))
            }
            (Type::State, Literal::Text(text)) => {
                let state = text.parse().map_err(|_| {
                    let known: Vec<_> = STATES.iter().map(|state| state.text()).collect();
                    self.wrong(
                        at,
                        format!("there is no state `{text}`; there are {}", known.join(", ")),
                    )
                })?;
                Some(Literal::State(state))
            }
            (Type::Workflow, Literal::Text(text)) => {
                let id = text.parse();
                let id = id.map_err(|error: gantry_proto::ids::ParseIdError| self.wrong(at, error.to_string()))?;
                Some(Literal::Workflow(id))
            }
            (Type::Principal, Literal::Text(text)) => {
                let id = text.parse();
                let id = id.map_err(|error: gantry_proto::ids::ParseIdError| self.wrong(at, error.to_string()))?;
                Some(Literal::Principal(id))
            }
            _ => None,
        };
        fits.ok_or_else(|| {
            let expected = match wanted {
                Type::Number => "a number",
                Type::Time => "a time, as timestamp('2030-01-31T08:00:00Z')",
                Type::State => "a state in quotes",
                Type::Workflow => "the id of a workflow in quotes",
                Type::Principal => "the id of a key in quotes",
                Type::Text | Type::Any => "a text in quotes",
            };
            self.wrong(at, format!("here stands {expected}"))
        })
    }

    fn value(&self, at: &IdedExpr) -> Result<Literal, FilterError> {
        // What is farther away than a double counts is compared as the nearest one.
        #[allow(clippy::cast_precision_loss)]
        let value = match &at.expr {
            Expr::Literal(LiteralValue::String(text)) => Literal::Text(text.inner().to_owned()),
            Expr::Literal(LiteralValue::Boolean(flag)) => Literal::Flag(*flag.inner()),
            Expr::Literal(LiteralValue::Int(number)) => Literal::Number(*number.inner() as f64),
            Expr::Literal(LiteralValue::UInt(number)) => Literal::Number(*number.inner() as f64),
            Expr::Literal(LiteralValue::Double(number)) => Literal::Number(*number.inner()),
            Expr::Call(call) if call.func_name == operators::NEGATE && call.args.len() == 1 => {
                match self.value(&call.args[0])? {
                    Literal::Number(number) => Literal::Number(-number),
                    _ => return Err(self.wrong(at, "`-` stands before a number")),
                }
            }
            Expr::Call(call) if call.func_name == "timestamp" && call.args.len() == 1 => match &call.args[0].expr {
                Expr::Literal(LiteralValue::String(text)) => {
                    Literal::TimeMs(time_ms(text.inner()).map_err(|message| self.wrong(&call.args[0], message))?)
                }
                _ => return Err(self.wrong(at, "`timestamp` takes a time in quotes: 2030-01-31T08:00:00Z")),
            },
            _ => {
                return Err(self.wrong(
                    at,
                    "here stands a text in quotes, a number, true, false or timestamp('...')",
                ));
            }
        };
        Ok(value)
    }
}

fn is_field(at: &IdedExpr) -> bool {
    match &at.expr {
        Expr::Ident(_) | Expr::Select(_) => true,
        Expr::Call(call) => call.func_name == operators::INDEX,
        _ => false,
    }
}

fn relation(operator: &str) -> Option<Relation> {
    Some(match operator {
        operators::EQUALS => Relation::Equal,
        operators::NOT_EQUALS => Relation::Unequal,
        operators::LESS => Relation::Less,
        operators::LESS_EQUALS => Relation::LessOrEqual,
        operators::GREATER => Relation::Greater,
        operators::GREATER_EQUALS => Relation::GreaterOrEqual,
        _ => return None,
    })
}

/// The relation of b to a, when it is that of a to b.
const fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Less => Relation::Greater,
        Relation::LessOrEqual => Relation::GreaterOrEqual,
        Relation::Greater => Relation::Less,
        Relation::GreaterOrEqual => Relation::LessOrEqual,
        same => same,
    }
}
