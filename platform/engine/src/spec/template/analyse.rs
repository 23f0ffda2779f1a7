//! What a template refers to, found without running it, and what of the language is refused.

use std::collections::HashSet;

use gantry_proto::limits::RENDERED_BYTES_MAX;
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, Token, parse, tokenize};

use super::{RenderError, filters};
use crate::spec::issues::{hint, near};

/// Joins of texts (`~`, `+`) in one template. Each may copy a whole result.
const JOINS_MAX: usize = 200;
/// Tokens of one expression or statement. The engine's parser builds chains (`a.b.c`, `x|f|g`, `a ~ b ~ c`) without a limit of depth, and everything that
/// walks them recurses.
const TOKENS_MAX: usize = 400;
/// Statements of one template: each `elif` lies within the one before.
const BLOCKS_MAX: usize = 400;
/// Loops within loops.
const LOOPS_MAX: usize = 3;

/// A name that a template reads from its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::spec) struct Reference {
    /// `params.repo` is `["params", "repo"]`; ends where a part is computed.
    pub(in crate::spec) path: Vec<String>,
    /// Line in the template, from 1.
    pub(in crate::spec) line: u32,
    /// Column, from 1.
    pub(in crate::spec) column: u32,
}

impl Reference {
    /// What is missing in the scope, and what there is instead; `None` when all of it is there.
    pub(super) fn explain(&self, scope: &serde_json::Value) -> Option<String> {
        let mut value = scope;
        for (index, segment) in self.path.iter().enumerate() {
            let next = match value {
                serde_json::Value::Object(map) => map.get(segment),
                serde_json::Value::Array(list) => segment.parse::<usize>().ok().and_then(|position| list.get(position)),
                _ => None,
            };
            if let Some(found) = next {
                value = found;
                continue;
            }
            let name = self.path[..=index].join(".");
            let there: Vec<&str> = value
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys().map(String::as_str))
                .collect();
            let close = near(segment, there.iter().copied());
            let wanted = if close.is_empty() {
                there.iter().copied().take(12).collect()
            } else {
                close
            };
            let listed = wanted
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ");
            let parent = if index == 0 {
                "there is".to_owned()
            } else {
                format!("`{}` has", self.path[..index].join("."))
            };
            return Some(match wanted.is_empty() {
                true => format!("`{name}` is undefined; {parent} nothing of that kind"),
                false => format!("`{name}` is undefined; {parent} {listed}"),
            });
        }
        None
    }
}

/// What a template reads, and what of the language it may not use.
pub(in crate::spec) struct Analysis {
    /// In the order of the text.
    pub(in crate::spec) references: Vec<Reference>,
    /// Empty when the template may be rendered.
    pub(in crate::spec) problems: Vec<RenderError>,
}

/// Parses a template and lists what it reads. An error when it cannot be parsed.
pub(in crate::spec) fn analyse(template: &str) -> Result<Analysis, RenderError> {
    // The engine counts lines and columns in 16 bits.
    if template.len() > RENDERED_BYTES_MAX || template.lines().count() > usize::from(u16::MAX) {
        let message = format!(
            "a template is longer than {RENDERED_BYTES_MAX} bytes or {} lines",
            u16::MAX
        );
        return Err(RenderError {
            line: 1,
            column: 0,
            message,
        });
    }
    check_depth(template)?;
    let root = parse(template, "template", super::syntax()).map_err(|error| RenderError {
        line: error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(1),
        column: error.range().map_or(0, |range| column_of(template, range.start)),
        message: error.detail().map_or_else(
            || error.kind().to_string(),
            |detail| format!("the template is not valid: {detail}"),
        ),
    })?;
    let mut walk = Walk {
        found: Vec::new(),
        problems: Vec::new(),
        locals: Vec::new(),
        joins: 0,
        loops: 0,
        in_iteration: false,
    };
    walk.statement(&root);
    walk.found.sort_by_key(|reference| (reference.line, reference.column));
    walk.problems.sort_by_key(|problem| (problem.line, problem.column));
    Ok(Analysis {
        references: walk.found,
        problems: walk.problems,
    })
}

/// Refuses what would be nested too deeply once parsed. Errors of the lexer are left to the parser, which stops at the same place.
fn check_depth(template: &str) -> Result<(), RenderError> {
    let (mut tokens, mut blocks) = (0, 0);
    for item in tokenize(template, false, super::syntax()) {
        let Ok((token, span)) = item else { return Ok(()) };
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart => tokens = 0,
            Token::BlockStart => (tokens, blocks) = (0, blocks + 1),
            _ => tokens += 1,
        }
        if tokens > TOKENS_MAX {
            return refused(
                span,
                format!("an expression has more than {TOKENS_MAX} words and signs"),
            );
        }
        if blocks > BLOCKS_MAX {
            return refused(
                span,
                format!("a template has more than {BLOCKS_MAX} statements (`{{% ... %}}`)"),
            );
        }
    }
    Ok(())
}

/// Column, from 1, of a byte offset.
pub(super) fn column_of(template: &str, offset: usize) -> u32 {
    let before = template.get(..offset).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |position| position + 1);
    u32::try_from(before[start..].chars().count() + 1).unwrap_or(u32::MAX)
}

struct Walk<'a> {
    found: Vec<Reference>,
    problems: Vec<RenderError>,
    locals: Vec<HashSet<&'a str>>,
    joins: usize,
    loops: usize,
    in_iteration: bool,
}

fn refused<T>(span: Span, message: impl Into<String>) -> Result<T, RenderError> {
    Err(RenderError {
        line: u32::from(span.start_line),
        column: u32::from(span.start_col) + 1,
        message: message.into(),
    })
}

impl<'a> Walk<'a> {
    fn refuse(&mut self, span: Span, message: impl Into<String>) {
        if self.problems.len() < crate::spec::issues::ISSUES_MAX {
            self.problems.push(RenderError {
                line: u32::from(span.start_line),
                column: u32::from(span.start_col) + 1,
                message: message.into(),
            });
        }
    }

    fn statements(&mut self, statements: &[Stmt<'a>]) {
        statements.iter().for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'a>) {
        let (span, word) = match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitExpr(emit) => return self.expression(&emit.expr),
            Stmt::EmitRaw(_) => return,
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr);
                self.statements(&condition.true_body);
                return self.statements(&condition.false_body);
            }
            Stmt::ForLoop(for_loop) => {
                if for_loop.recursive {
                    return self.refuse(for_loop.span(), "`recursive` loops are not allowed in templates");
                }
                if self.loops == LOOPS_MAX {
                    return self.refuse(
                        for_loop.span(),
                        format!("loops in templates nest at most {LOOPS_MAX} deep"),
                    );
                }
                self.in_iteration = true;
                self.expression(&for_loop.iter);
                self.in_iteration = false;
                let mut names = HashSet::from(["loop"]);
                targets(&for_loop.target, &mut names);
                self.locals.push(names);
                self.loops += 1;
                if let Some(filter) = &for_loop.filter_expr {
                    self.expression(filter);
                }
                self.statements(&for_loop.body);
                self.loops -= 1;
                self.locals.pop();
                return self.statements(&for_loop.else_body);
            }
            Stmt::Set(inner) => (inner.span(), "set"),
            Stmt::SetBlock(inner) => (inner.span(), "set"),
            Stmt::WithBlock(inner) => (inner.span(), "with"),
            Stmt::AutoEscape(inner) => (inner.span(), "autoescape"),
            Stmt::FilterBlock(inner) => (inner.span(), "filter"),
            Stmt::Do(inner) => (inner.span(), "do"),
            // Statements of features that are off, unless another crate turns them on.
            #[allow(unreachable_patterns)]
            _ => return self.refuse(Span::default(), "only values, `if` and `for` are allowed in templates"),
        };
        self.refuse(
            span,
            format!("`{{% {word} %}}` is not allowed in templates; use values, `if`, `for` and filters"),
        )
    }

    fn expression(&mut self, expression: &Expr<'a>) {
        if let Some((path, computed)) = path_of(expression) {
            if !self.locals.iter().any(|names| names.contains(path[0].as_str())) {
                let span = root_span(expression);
                self.found.push(Reference {
                    path,
                    line: u32::from(span.start_line),
                    column: u32::from(span.start_col) + 1,
                });
            }
            return computed.into_iter().for_each(|part| self.expression(part));
        }
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                [&slice.start, &slice.stop, &slice.step]
                    .into_iter()
                    .flatten()
                    .for_each(|part| self.expression(part))
            }
            Expr::UnaryOp(unary) => self.expression(&unary.expr),
            Expr::BinOp(binary) => {
                if matches!(binary.op, BinOpKind::Concat | BinOpKind::Add | BinOpKind::Mul) {
                    self.joins += 1;
                    if self.joins > JOINS_MAX {
                        return self.refuse(
                            binary.span(),
                            format!("a template joins texts more than {JOINS_MAX} times"),
                        );
                    }
                    let counts =
                        matches!(binary.op, BinOpKind::Add) && (is_number(&binary.left) || is_number(&binary.right));
                    if self.in_iteration && !counts {
                        return self.refuse(
                            binary.span(),
                            "texts cannot be joined or repeated in what a `for` goes through",
                        );
                    }
                }
                self.expression(&binary.left);
                self.expression(&binary.right)
            }
            Expr::Compare(compare) => {
                self.expression(&compare.expr);
                compare
                    .ops
                    .iter()
                    .for_each(|operation| self.expression(&operation.expr))
            }
            Expr::IfExpr(condition) => {
                self.expression(&condition.test_expr);
                self.expression(&condition.true_expr);
                condition.false_expr.iter().for_each(|part| self.expression(part))
            }
            Expr::Filter(filter) => {
                if !filters::NAMES.contains(&filter.name) {
                    let close = hint(filter.name, filters::NAMES.iter().copied());
                    return self.refuse(filter.span(), format!("unknown filter `{}`{close}", filter.name));
                }
                filter.expr.iter().for_each(|part| self.expression(part));
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                self.expression(&test.expr);
                self.arguments(&test.args)
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => {
                self.expression(&get.expr);
                self.expression(&get.subscript_expr)
            }
            Expr::Call(call) => match &call.expr {
                Expr::Var(name) if name.id == "range" => self.arguments(&call.args),
                other => self.refuse(
                    other.span(),
                    "the only function in templates is `range`; use filters (`value|filter`)",
                ),
            },
            Expr::List(list) => list.items.iter().for_each(|item| self.expression(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expression(item)),
            Expr::Map(map) => map
                .keys
                .iter()
                .chain(&map.values)
                .for_each(|item| self.expression(item)),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        arguments.iter().for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                self.expression(value)
            }
        })
    }
}

fn is_number(expression: &Expr<'_>) -> bool {
    matches!(expression, Expr::Const(constant) if constant.value.as_str().is_none())
}

/// Names that a loop gives values to.
fn targets<'a>(target: &Expr<'a>, names: &mut HashSet<&'a str>) {
    match target {
        Expr::Var(name) => {
            names.insert(name.id);
        }
        Expr::List(list) => list.items.iter().for_each(|item| targets(item, names)),
        Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| targets(item, names)),
        _ => {}
    }
}

/// The constant path that an expression reads, and the computed parts that are expressions of their own; `None` when it is no access to a name.
fn path_of<'e, 'a>(expression: &'e Expr<'a>) -> Option<(Vec<String>, Vec<&'e Expr<'a>>)> {
    match expression {
        Expr::Var(name) => Some((vec![name.id.to_owned()], Vec::new())),
        Expr::GetAttr(get) => {
            let (mut path, computed) = path_of(&get.expr)?;
            if computed.is_empty() {
                path.push(get.name.to_owned());
            }
            Some((path, computed))
        }
        Expr::GetItem(get) => {
            let (mut path, mut computed) = path_of(&get.expr)?;
            let constant = match &get.subscript_expr {
                Expr::Const(constant) => constant
                    .value
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| constant.value.as_usize().map(|index| index.to_string())),
                _ => None,
            };
            match constant {
                Some(segment) if computed.is_empty() => path.push(segment),
                _ => computed.push(&get.subscript_expr),
            }
            Some((path, computed))
        }
        _ => None,
    }
}

fn root_span(expression: &Expr<'_>) -> Span {
    match expression {
        Expr::GetAttr(get) => root_span(&get.expr),
        Expr::GetItem(get) => root_span(&get.expr),
        other => other.span(),
    }
}
