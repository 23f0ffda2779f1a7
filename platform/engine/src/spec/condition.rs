//! Conditions (`when`): CEL expressions over values, cut down to what can be bounded without a clock: no regular expressions and no loops within loops;
//! an evaluation counts the bytes that it looks at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::Parser;
use cel::{Context, ExecutionError, Value};
use gantry_proto::limits::{CONDITION_BYTES_MAX, CONDITION_WORK_BYTES_MAX};

use super::issues::hint;

/// Brackets within brackets, calls within calls.
const DEPTH_MAX: u16 = 16;
/// Signs that the parser goes down for, one within the other at worst.
const SIGNS_MAX: usize = 32;
/// Joins of texts and lists (`+`). Each may copy a whole value.
const JOINS_MAX: usize = 16;

/// Functions that conditions may call; macros among them.
const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "type",
    "dyn",
];

/// A condition that parses and keeps to what is allowed.
#[derive(Debug)]
pub(crate) struct Condition {
    expression: IdedExpr,
    references: Vec<Vec<String>>,
}

impl Condition {
    /// What it reads, each as the path from its root: `params.deploy` is `["params", "deploy"]`.
    pub(super) fn references(&self) -> &[Vec<String>] {
        &self.references
    }
}

/// Whether the parser can go down into a text without running out of stack: it goes down once for each of these, and notices its own limit later than a small
/// stack does.
pub(crate) fn is_shallow(text: &str) -> bool {
    let (mut depth, mut deepest, mut others) = (0usize, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'!' | b'?' | b'-' => others += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest <= usize::from(DEPTH_MAX) && others <= SIGNS_MAX
}

/// The parser of conditions and filters.
pub(crate) fn parser() -> Parser {
    Parser::new().max_recursion_depth(DEPTH_MAX).error_recovery_limit(1)
}

/// Parses a condition.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub(crate) fn parse(text: &str) -> Result<Condition, String> {
    if text.trim().is_empty() {
        return Err("the condition is empty".to_owned());
    }
    if text.len() > CONDITION_BYTES_MAX {
        return Err(format!(
            "the condition has {} bytes; at most {CONDITION_BYTES_MAX} are allowed: compute it in a step, and let that set an output",
            text.len()
        ));
    }
    if text.contains("{{") {
        return Err("a condition is an expression, not a template: write `params.deploy` without braces".to_owned());
    }
    if !is_shallow(text) {
        return Err(format!(
            "brackets nest at most {DEPTH_MAX} deep in a condition, and at most {SIGNS_MAX} `!`, `?` and `-` are allowed"
        ));
    }
    let expression = parser().parse(text).map_err(|errors| {
        let said = errors.errors.first().map_or_else(String::new, |error| {
            format!(
                " at line {}, column {}: {}",
                error.pos.0.max(1),
                error.pos.1.max(1),
                error.msg
            )
        });
        format!("the condition is no CEL expression{said}")
    })?;
    let mut walk = Walk::default();
    walk.expression(&expression)?;
    Ok(Condition {
        expression,
        references: walk.references,
    })
}

/// Evaluates a condition over `roots`.
///
/// # Errors
/// Why it has no answer, in a sentence.
pub(crate) fn holds(text: &str, roots: &serde_json::Map<String, serde_json::Value>) -> Result<bool, String> {
    let condition = parse(text)?;
    let mut values = BTreeMap::new();
    for (name, root) in roots {
        // Only what it reads is converted.
        if !condition.references.iter().any(|path| path[0] == *name) {
            continue;
        }
        let value = value_of(root);
        let bytes = serde_json::to_vec(root).map_or(0, |json| json.len() as u64);
        let value: Box<dyn Val> = value
            .try_into()
            .map_err(|_| format!("`{name}` cannot be read by a condition"))?;
        values.insert(name.clone(), (value, bytes));
    }
    let metered = Metered {
        values,
        left: AtomicU64::new(CONDITION_WORK_BYTES_MAX),
    };
    let mut context = Context::default();
    context.set_variable_resolver(&metered);
    let answer = context.resolve(&condition.expression);
    if metered.left.load(Ordering::Relaxed) == 0 {
        return Err(format!(
            "it looks at more than {CONDITION_WORK_BYTES_MAX} bytes; compute it in a step, and let that set an output"
        ));
    }
    match answer {
        Ok(Value::Bool(answer)) => Ok(answer),
        Ok(other) => Err(format!("it is {}, not true or false", other.type_of())),
        Err(error) => Err(explained(&error)),
    }
}

/// JSON as CEL has it: whole numbers are `int`, so that they can be reckoned with.
fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::UInt(value),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.clone()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(value_of).collect::<Vec<_>>()),
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), value_of(value)));
            Value::from(fields.collect::<std::collections::HashMap<String, Value>>())
        }
    }
}

fn explained(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{key}`; `has(...)` asks whether there is"),
        ExecutionError::UndeclaredReference(name) => format!("`{name}` is undefined"),
        // Others print whole values.
        other => other.to_string().chars().take(300).collect(),
    }
}

/// Hands values out and counts their bytes each time. Past the limit there is nothing any more, which ends the evaluation.
struct Metered {
    values: BTreeMap<String, (Box<dyn Val>, u64)>,
    left: AtomicU64,
}

impl VariableResolver for Metered {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (value, bytes) = self.values.get(variable)?;
        let left = self
            .left
            .load(Ordering::Relaxed)
            .saturating_sub(bytes.saturating_add(64));
        self.left.store(left, Ordering::Relaxed);
        (left > 0).then(|| CowVal::Borrowed(value.as_ref()))
    }
}

/// Looks at every part once.
#[derive(Default)]
struct Walk {
    references: Vec<Vec<String>>,
    /// Names that the loop at hand binds.
    bound: Vec<String>,
    joins: usize,
}

impl Walk {
    fn expression(&mut self, at: &IdedExpr) -> Result<(), String> {
        match &at.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(_) | Expr::Select(_) => self.access(at),
            Expr::List(list) => list.elements.iter().try_for_each(|each| self.expression(each)),
            Expr::Map(map) => map.entries.iter().try_for_each(|each| match &each.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key)?;
                    self.expression(&entry.value)
                }
                EntryExpr::StructField(field) => self.expression(&field.value),
            }),
            Expr::Struct(_) => Err("messages are not known in conditions".to_owned()),
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name == operators::INDEX {
                    return self.access(at);
                }
                if name == operators::ADD {
                    let accumulates = matches!(call.args.first().map(|first| &first.expr), Some(Expr::Ident(name)) if name == ACCUMULATOR);
                    if !self.bound.is_empty() && !accumulates {
                        return Err(
                            "nothing can be joined or added inside of `all`, `exists`, `map` and `filter`".to_owned(),
                        );
                    }
                    self.joins += usize::from(!accumulates);
                    if self.joins > JOINS_MAX {
                        return Err(format!("more than {JOINS_MAX} `+` are too many"));
                    }
                }
                let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                if word && !FUNCTIONS.contains(&name) {
                    return Err(format!(
                        "there is no function `{name}` in conditions{}; there are {}, all, exists, exists_one, map, filter and has",
                        hint(name, FUNCTIONS.iter().copied()),
                        FUNCTIONS.join(", ")
                    ));
                }
                call.target.iter().try_for_each(|target| self.expression(target))?;
                call.args.iter().try_for_each(|each| self.expression(each))
            }
            Expr::Comprehension(inner) => {
                self.expression(&inner.iter_range)?;
                if !self.bound.is_empty() {
                    return Err("`all`, `exists`, `map` and `filter` cannot stand inside of each other".to_owned());
                }
                self.bound = vec![inner.iter_var.clone(), inner.accu_var.clone()];
                self.bound.extend(inner.iter_var2.clone());
                for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.expression(part)?;
                }
                self.bound.clear();
                Ok(())
            }
        }
    }

    /// A name with what is selected of it: what it reads is noted, and computed parts are looked at on their own.
    fn access(&mut self, at: &IdedExpr) -> Result<(), String> {
        let mut path: Vec<String> = Vec::new();
        let mut here = at;
        loop {
            match &here.expr {
                Expr::Select(select) => {
                    path.push(select.field.clone());
                    // `has(a.b)` asks for b: that it is not there is the question.
                    if select.test {
                        path.clear();
                    }
                    here = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                    match &call.args[1].expr {
                        Expr::Literal(cel::common::ast::LiteralValue::String(text)) => {
                            path.push(text.inner().to_owned());
                        }
                        _ => {
                            path.clear();
                            self.expression(&call.args[1])?;
                        }
                    }
                    here = &call.args[0];
                }
                Expr::Ident(name) => {
                    if !self.bound.contains(name) && !TYPES.contains(&name.as_str()) {
                        path.push(name.clone());
                        path.reverse();
                        self.references.push(path);
                    }
                    return Ok(());
                }
                _ => return self.expression(here),
            }
        }
    }
}

/// The name that loops gather their result under.
const ACCUMULATOR: &str = "@result";
/// Names of types, which are values in CEL.
const TYPES: &[&str] = &["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> serde_json::Map<String, serde_json::Value> {
        let scope = json!({
            "params": { "deploy": true, "regions": ["eu", "us"], "n": 3 },
            "tasks": { "test": { "state": "completed", "code": "", "outputs": { "coverage": 81.5, "my-key": "x" } } },
            "workflow": { "name": "w" },
        });
        scope.as_object().unwrap().clone()
    }

    fn ok(text: &str) -> bool {
        holds(text, &scope()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn conditions_read_parameters_and_results() {
        assert!(ok("params.deploy && tasks.test.outputs.coverage > 80"));
        assert!(ok("params.n * 2 - 1 == 5"));
        assert!(!ok("!params.deploy || params.n > 3"));
        assert!(ok(
            "tasks.test.state == 'completed' && tasks['test'].outputs['my-key'] == \"x\""
        ));
        assert!(ok("'eu' in params.regions && size(params.regions) == 2"));
        assert!(ok(
            "params.regions.exists(r, r.startsWith('u')) && params.regions.all(r, size(r) == 2)"
        ));
        assert!(ok("!has(tasks.test.outputs.nothing)"));
        assert!(ok("params.regions.filter(r, r != 'eu').map(r, r) == ['us']"));
    }

    #[test]
    fn what_has_no_answer_says_why() {
        for (text, said) in [
            ("params.n", "not true or false"),
            ("tasks.test.outputs.nothing == 1", "there is no `nothing`"),
            ("params.n / 0 == 1", "zero"),
            ("params.n + 'x' == ''", ""),
        ] {
            let error = holds(text, &scope()).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        for (text, said) in [
            ("", "empty"),
            ("{{ params.deploy }}", "not a template"),
            ("params.deploy &&", "no CEL expression"),
            ("params.name.matches('a*')", "no function `matches`"),
            (
                "params.regions.all(a, params.regions.all(b, a == b))",
                "inside of each other",
            ),
            ("params.regions.exists(a, a + a == 'x')", "joined"),
            ("siz(params.regions) == 1", "did you mean `size`"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(parse(&format!("{}true{}", "(".repeat(500), ")".repeat(500))).is_err());
        assert!(parse(&vec!["1"; 40].join("+")).is_err());
        assert!(
            parse(&"x".repeat(CONDITION_BYTES_MAX + 1))
                .unwrap_err()
                .contains("bytes")
        );
    }

    #[test]
    fn an_evaluation_ends_by_the_bytes_that_it_looks_at() {
        let many: Vec<u32> = (0..20_000).collect();
        let scope = json!({ "params": { "list": many, "text": "x".repeat(100_000) } });
        let error = holds("params.list.all(n, params.text != 'y')", scope.as_object().unwrap()).unwrap_err();
        assert!(error.contains("looks at more than"), "{error}");
    }
}
