//! `gantry playbook`: versioned definitions.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::Table;
use super::{Exit, Form, Usage, output, run};
use crate::client::Client;
use crate::client::config::ConnectionArgs;
use crate::client::model::List;

#[derive(Debug, Subcommand)]
pub(crate) enum PlaybookCommand {
    /// Make the next version of a playbook from a file
    Create {
        /// Workflow definition, YAML or JSON; `-` reads stdin
        file: PathBuf,
        /// Name of the playbook; default: the definition's own name
        #[arg(long)]
        name: Option<String>,
        /// What changed, for people
        #[arg(short = 'm', long)]
        note: Option<String>,
        /// Refuse when another version than this one is the newest (0: the playbook must be new)
        #[arg(long, value_name = "VERSION")]
        expected: Option<u32>,
    },
    /// Check a definition and print what it does
    Validate {
        /// Workflow definition, YAML or JSON; `-` reads stdin
        file: PathBuf,
    },
    /// Playbooks of the tenant
    Ls {
        /// Only archived ones
        #[arg(long)]
        archived: bool,
    },
    /// Print the definition of a version
    Show {
        /// `name` (its newest version) or `name@version`
        playbook: String,
    },
    /// Versions of a playbook, newest first
    Versions {
        /// Its name
        name: String,
    },
    /// How two versions differ
    Diff {
        /// Its name
        name: String,
        /// The older version; default: the one before the newer
        from: Option<u32>,
        /// The newer version; default: the newest
        to: Option<u32>,
    },
    /// Let a playbook start nothing any more; what runs goes on
    Archive {
        /// Its name
        name: String,
    },
    /// Take an archived playbook back
    Restore {
        /// Its name
        name: String,
    },
    /// Print playbooks with all versions, to import them elsewhere
    Export {
        /// Names; none: all that are not archived
        names: Vec<String>,
    },
    /// Take playbooks from what `export` printed
    Import {
        /// File; `-` reads stdin
        file: PathBuf,
    },
}

#[derive(Debug, Deserialize)]
struct Playbook {
    name: String,
    latest: u32,
    #[serde(default)]
    description: Option<String>,
    changed_at_ms: u64,
}

#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
    digest: String,
    #[serde(default)]
    note: Option<String>,
    created_at_ms: u64,
    #[serde(default)]
    created_by: Option<String>,
}

/// One path segment.
pub(super) fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The path of `name` or `name@version`.
fn version_path(reference: &str) -> String {
    let (name, version) = reference.rsplit_once('@').unwrap_or((reference, "latest"));
    format!("/playbooks/{}/versions/{}", segment(name), segment(version))
}

/// Every item of a list that comes in pages.
pub(super) async fn all<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<(Vec<T>, Vec<Value>)> {
    let (mut items, mut raw) = (Vec::new(), Vec::new());
    let mut cursor = String::new();
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let page: Value = client.get(&format!("{path}{mark}limit=500{cursor}")).await?;
        let next = page.get("next_cursor").and_then(Value::as_str).map(segment);
        let values: List<Value> = serde_json::from_value(page).context("read the list")?;
        for value in values.items {
            items.push(serde_json::from_value(value.clone()).context("read the list")?);
            raw.push(value);
        }
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok((items, raw)),
        }
    }
}

pub(crate) async fn run(command: PlaybookCommand, connection: &ConnectionArgs, form: Form) -> Result<Exit> {
    let client = Client::new(connection.resolve()?)?;
    match command {
        PlaybookCommand::Create {
            file,
            name,
            note,
            expected,
        } => {
            let definition = run::read(&file).map_err(Usage)?;
            let body = json!({"definition": definition, "name": name, "note": note, "expected": expected});
            let made: Value = client.post("/playbooks", &body).await?;
            if form == Form::Json {
                output::json(&made)?;
                return Ok(Exit::Ok);
            }
            let (name, version) = (made["name"].as_str().unwrap_or_default(), &made["version"]);
            if made["created"] == json!(false) {
                eprintln!("nothing has changed since version {version}");
            }
            output::line(&format!("{name}@{version}"))?;
        }
        PlaybookCommand::Validate { file } => {
            let definition = run::read(&file).map_err(Usage)?;
            let view: Value = client
                .post("/playbooks:validate", &json!({"definition": definition}))
                .await?;
            match form {
                Form::Json => output::json(&view)?,
                Form::Text => outline(&view)?,
            }
        }
        PlaybookCommand::Ls { archived } => {
            let (items, raw) = all::<Playbook>(&client, &format!("/playbooks?archived={archived}")).await?;
            if form == Form::Json {
                output::json(&json!({"items": raw}))?;
                return Ok(Exit::Ok);
            }
            let mut table = Table::new(&["NAME", "LATEST", "CHANGED", "DESCRIPTION"]);
            for each in items {
                table.row(vec![
                    each.name,
                    each.latest.to_string(),
                    output::time(each.changed_at_ms),
                    each.description.unwrap_or_default(),
                ]);
            }
            table.print()?;
        }
        PlaybookCommand::Show { playbook } => {
            let path = version_path(&playbook);
            if form == Form::Json {
                let view: Value = client.get(&format!("{path}/outline")).await?;
                output::json(&view)?;
            } else {
                let request = client.request(reqwest::Method::GET, &format!("{path}/definition"));
                let source = client
                    .send(request)
                    .await?
                    .text()
                    .await
                    .context("read the definition")?;
                output::line(source.trim_end())?;
            }
        }
        PlaybookCommand::Versions { name } => {
            let (items, raw) = all::<Version>(&client, &format!("/playbooks/{}/versions", segment(&name))).await?;
            if form == Form::Json {
                output::json(&json!({"items": raw}))?;
                return Ok(Exit::Ok);
            }
            let mut table = Table::new(&["VERSION", "MADE", "BY", "DIGEST", "NOTE"]);
            for each in items {
                table.row(vec![
                    each.version.to_string(),
                    output::time(each.created_at_ms),
                    each.created_by.unwrap_or_else(|| "-".to_owned()),
                    each.digest.chars().take(12).collect(),
                    each.note.unwrap_or_default(),
                ]);
            }
            table.print()?;
        }
        PlaybookCommand::Diff { name, from, to } => {
            let query: Vec<String> = [("from", from), ("to", to)]
                .iter()
                .filter_map(|(key, value)| value.map(|value| format!("{key}={value}")))
                .collect();
            let diff: Value = client
                .get(&format!("/playbooks/{}/diff?{}", segment(&name), query.join("&")))
                .await?;
            match form {
                Form::Json => output::json(&diff)?,
                Form::Text => output::line(diff["text"].as_str().unwrap_or_default().trim_end())?,
            }
        }
        PlaybookCommand::Archive { name } => change(&client, &name, "archive", "archived", form).await?,
        PlaybookCommand::Restore { name } => change(&client, &name, "restore", "restored", form).await?,
        PlaybookCommand::Export { names } => {
            let query: Vec<String> = names.iter().map(|name| format!("name={}", segment(name))).collect();
            let bundle: Value = client.get(&format!("/playbooks:export?{}", query.join("&"))).await?;
            output::json(&bundle)?;
        }
        PlaybookCommand::Import { file } => {
            let text = run::read_text(&file, run::BUNDLE_BYTES_MAX).map_err(Usage)?;
            let bundle: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is no bundle that `gantry playbook export` printed", file.display()))
                .map_err(Usage)?;
            let answer: Value = client.post("/playbooks:import", &bundle).await?;
            match form {
                Form::Json => output::json(&answer)?,
                Form::Text => output::line(&format!("{} versions added", answer["versions_added"]))?,
            }
        }
    }
    Ok(Exit::Ok)
}

async fn change(client: &Client, name: &str, action: &str, done: &str, form: Form) -> Result<()> {
    let changed: Value = client
        .post(&format!("/playbooks/{}:{action}", segment(name)), &json!({}))
        .await?;
    match form {
        Form::Json => output::json(&changed),
        Form::Text => output::line(&format!("{name} {done}")),
    }
}

/// What a definition does, for people.
fn outline(view: &Value) -> Result<()> {
    output::line(&format!("{} is valid", view["name"].as_str().unwrap_or_default()))?;
    for task in view["tasks"].as_array().into_iter().flatten() {
        let names = |key: &str| {
            let items = task[key].as_array().into_iter().flatten();
            items.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let needs = names("needs");
        let after = if needs.is_empty() {
            String::new()
        } else {
            format!(" (after {needs})")
        };
        let name = task["name"].as_str().unwrap_or_default();
        output::line(&format!("  {name}{after}: {}", names("steps")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::version_path;

    #[test]
    fn a_reference_without_version_means_the_newest() {
        assert_eq!(version_path("build"), "/playbooks/build/versions/latest");
        assert_eq!(version_path("build@3"), "/playbooks/build/versions/3");
        assert_eq!(version_path("a/b@3"), "/playbooks/a%2Fb/versions/3");
    }
}
