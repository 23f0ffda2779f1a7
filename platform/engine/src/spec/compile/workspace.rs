//! Where a task's tree comes from.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::{WorkspaceDef, WorkspaceSourceDef};
use crate::spec::scalars;
use crate::spec::source::{MountSource, TaskSource, WorkspaceSource};
use crate::spec::template::has_markup;

/// Trees of one workspace.
const MOUNTS_MAX: usize = 32;

impl Check<'_> {
    pub(super) fn workspace(
        &mut self,
        path: &[String],
        source: &WorkspaceSource,
        scope: &Scope<'_>,
        before: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
    ) -> Vec<WorkspaceDef> {
        let root = MountSource {
            git: source.git.clone(),
            reference: source.reference.clone(),
            depth: source.depth,
            path: source.path.clone(),
            from: source.from.clone(),
        };
        let Some(mounts) = &source.mounts else {
            let tree = self.tree(path, &root, scope, before, tasks);
            return tree
                .map(|source| WorkspaceDef {
                    name: String::new(),
                    source,
                })
                .into_iter()
                .collect();
        };
        if root.git.is_some()
            || root.path.is_some()
            || root.from.is_some()
            || root.reference.is_some()
            || root.depth.is_some()
        {
            self.complain(
                path,
                "a workspace has either one source (`git`, `path` or `from`) or several under `mounts`, not both",
            );
        }
        let mounts_path = join(path, "mounts");
        if mounts.is_empty() {
            self.complain(&mounts_path, "`mounts` names no tree");
        }
        if mounts.len() > MOUNTS_MAX {
            self.complain(
                &mounts_path,
                format!("{} trees are too many; at most {MOUNTS_MAX} are allowed", mounts.len()),
            );
        }
        let mut compiled = Vec::with_capacity(mounts.len());
        for (name, mount) in mounts {
            let place = join(&mounts_path, name);
            if let Err(message) = scalars::mount(name) {
                self.complain_key(&place, message);
            }
            if mount.git.is_none() && mount.path.is_none() && mount.from.is_none() {
                self.complain(
                    &place,
                    format!("the tree `{name}` has no source; give it `git`, `path` or `from`"),
                );
                continue;
            }
            compiled.extend(
                self.tree(&place, mount, scope, before, tasks)
                    .map(|source| WorkspaceDef {
                        name: name.clone(),
                        source,
                    }),
            );
        }
        compiled
    }

    fn tree(
        &mut self,
        path: &[String],
        source: &MountSource,
        scope: &Scope<'_>,
        before: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
    ) -> Option<WorkspaceSourceDef> {
        let given = [
            ("git", source.git.is_some()),
            ("path", source.path.is_some()),
            ("from", source.from.is_some()),
        ];
        let given: Vec<&str> = given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| name)
            .collect();
        if given.len() > 1 {
            self.complain(
                path,
                format!("a tree has one source; this one has {}", given.join(" and ")),
            );
        }
        if source.git.is_none() {
            for (field, present) in [("ref", source.reference.is_some()), ("depth", source.depth.is_some())] {
                if present {
                    self.complain_key(&join(path, field), format!("`{field}` goes with `git`"));
                }
            }
        }
        if let Some(url) = &source.git {
            self.text(&join(path, "git"), url, scope, scalars::git_remote);
            if let Some(reference) = &source.reference {
                self.text(&join(path, "ref"), reference, scope, scalars::git_ref);
            }
            let depth = source
                .depth
                .map(|depth| u32::try_from(depth).ok().filter(|depth| *depth > 0));
            if depth == Some(None) {
                self.complain(&join(path, "depth"), format!("a depth lies between 1 and {}", u32::MAX));
            }
            return Some(WorkspaceSourceDef::Git {
                url: url.clone(),
                reference: source.reference.clone(),
                depth: depth.flatten(),
            });
        }
        if let Some(local) = &source.path {
            self.text(&join(path, "path"), local, scope, |text| {
                if text.starts_with('/') {
                    scalars::workdir(text)
                } else {
                    Err(format!("`{text}` is not absolute; a node's paths begin with `/`"))
                }
            });
            return Some(WorkspaceSourceDef::Path(local.clone()));
        }
        let task = source.from.as_ref()?;
        self.needed(&join(path, "from"), task, "its tree", before, tasks);
        if tasks.get(task).is_some_and(|source| source.for_each.is_some()) {
            let message = format!(
                "`{task}` is a task over a list and has no tree of its own; keep artifacts, and take them by `inputs`"
            );
            self.complain(&join(path, "from"), message);
        }
        Some(WorkspaceSourceDef::From(task.clone()))
    }

    /// Checks a template, or the text itself when it is none.
    pub(super) fn text(
        &mut self,
        path: &[String],
        text: &str,
        scope: &Scope<'_>,
        check: impl FnOnce(&str) -> Result<(), String>,
    ) {
        if has_markup(text) {
            self.template(path, text, scope);
        } else {
            self.checked(path, check(text));
        }
    }
}
