//! The graph of tasks: unknown needs, cycles, and which tasks have ended before another starts.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use super::{Check, join};
use crate::spec::issues::hint;
use crate::spec::scalars;
use crate::spec::source::TaskSource;

/// Which tasks need which. Holds known needs only.
pub(super) struct Graph<'a> {
    names: Vec<&'a str>,
    index: HashMap<&'a str, usize>,
    needs: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    /// All tasks that have ended when a task starts: its needs, and what they need.
    pub(super) fn before(&self, name: &str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = self
            .index
            .get(name)
            .map(|index| self.needs[*index].clone())
            .unwrap_or_default();
        while let Some(index) = open.pop() {
            if seen.insert(self.names[index]) {
                open.extend(&self.needs[index]);
            }
        }
        seen
    }

    /// One cycle, if there is any: tasks in the order in which each needs the next.
    fn cycle(&self) -> Option<Vec<usize>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Colour {
            New,
            Open,
            Done,
        }
        let mut colours = vec![Colour::New; self.names.len()];
        for start in 0..self.names.len() {
            if colours[start] != Colour::New {
                continue;
            }
            // Depth first with a stack of our own: a chain of a thousand tasks must not exhaust the thread's.
            let mut stack: Vec<(usize, usize)> = vec![(start, 0)];
            colours[start] = Colour::Open;
            while let Some((task, next)) = stack.last_mut() {
                let Some(&needed) = self.needs[*task].get(*next) else {
                    colours[*task] = Colour::Done;
                    stack.pop();
                    continue;
                };
                *next += 1;
                match colours[needed] {
                    Colour::New => {
                        colours[needed] = Colour::Open;
                        stack.push((needed, 0));
                    }
                    Colour::Open => {
                        let path: Vec<usize> = stack.iter().map(|(task, _)| *task).collect();
                        let begin = path.iter().position(|task| *task == needed).unwrap_or(0);
                        return Some(path[begin..].to_vec());
                    }
                    Colour::Done => {}
                }
            }
        }
        None
    }
}

impl Check<'_> {
    /// Checks names and needs of all tasks.
    pub(super) fn needs<'s>(&mut self, tasks: &'s IndexMap<String, TaskSource>) -> Graph<'s> {
        let names: Vec<&str> = tasks.keys().map(String::as_str).collect();
        let index: HashMap<&str, usize> = names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        let root = vec!["tasks".to_owned()];
        let mut needs = Vec::with_capacity(names.len());
        for (name, task) in tasks {
            let path = join(&root, name);
            if let Err(message) = scalars::name(name, false) {
                self.complain_key(&path, message);
            }
            let list_path = join(&path, "needs");
            let one = matches!(task.needs, Some(crate::spec::source::OneOrMany::One(_)));
            let mut known = Vec::new();
            for (position, needed) in task.needs.iter().flat_map(|needs| needs.list()).enumerate() {
                let place = if one {
                    list_path.clone()
                } else {
                    join(&list_path, position)
                };
                match index.get(needed.as_str()) {
                    Some(found) if known.contains(found) => self.complain(&place, format!("`{needed}` is named twice")),
                    Some(_) if needed == *name => self.complain(&place, format!("task `{name}` needs itself")),
                    Some(found) => known.push(*found),
                    None => {
                        let close = hint(&needed, names.iter().copied());
                        self.complain(
                            &place,
                            format!("task `{name}` needs `{needed}`, which does not exist{close}"),
                        );
                    }
                }
            }
            needs.push(known);
        }
        let graph = Graph { names, index, needs };
        if let Some(cycle) = graph.cycle() {
            let first = graph.names[cycle[0]];
            let mut text: Vec<&str> = cycle.iter().map(|task| graph.names[*task]).collect();
            text.push(first);
            self.complain(
                &join(&join(&root, first), "needs"),
                format!("tasks need each other in a circle: {}", text.join(" -> ")),
            );
        }
        graph
    }
}
