//! Holds what Docker made of a container against what was asked. An older engine ignores fields it does not know, a daemon has defaults of its
//! own, a plugin may rewrite requests: any difference in a field is found here, before the container is started.
//!
//! The rule is closed: a field that was not asked for must be empty, save for the few listed in [`FREE_FIELDS`].

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerConfig, ContainerCreateBody, ContainerInspectResponse, HealthConfig, MountPoint};
use serde_json::{Map, Value};

/// The first field in which Docker did something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Docker changed {field}: asked {asked}, got {got}")]
pub(crate) struct Difference {
    /// Path of the field, as in inspect.
    pub(crate) field: String,
    pub(crate) asked: String,
    pub(crate) got: String,
}

/// Fields of the host configuration that Docker fills by itself, and why each does not matter.
const FREE_FIELDS: [(&str, &str); 3] = [
    ("ConsoleSize", "there is no console"),
    ("Isolation", "Windows only"),
    (
        "Runtime",
        "the engine's default when none was asked; an asked one is compared",
    ),
];

/// Longest rendering of a value in an error.
const SHOWN_CHARS_MAX: usize = 160;

/// Compares every field.
pub(crate) fn compare(asked: &ContainerCreateBody, got: &ContainerInspectResponse) -> Result<(), Difference> {
    let config = got.config.clone().unwrap_or_default();
    same("Image", &asked.image, &got.image)?;
    same(
        "Path",
        &asked.entrypoint.as_ref().and_then(|argv| argv.first()),
        &got.path.as_ref(),
    )?;
    same("Args", &Vec::<String>::new(), &got.args.clone().unwrap_or_default())?;
    if got.app_armor_profile.as_deref() == Some("unconfined") {
        return Err(difference(
            "AppArmorProfile",
            &Value::from("not unconfined"),
            &Value::from("unconfined"),
        ));
    }
    compare_config(asked, &config)?;
    compare_host_config(asked, got)?;
    compare_mounts(asked, got.mounts.as_deref().unwrap_or_default())
}

fn compare_config(asked: &ContainerCreateBody, got: &ContainerConfig) -> Result<(), Difference> {
    same("Config.Image", &asked.image, &got.image)?;
    same("Config.User", &asked.user, &got.user)?;
    same("Config.Hostname", &asked.hostname, &got.hostname)?;
    same("Config.Domainname", &asked.domainname, &got.domainname)?;
    same("Config.WorkingDir", &asked.working_dir, &got.working_dir)?;
    same("Config.Entrypoint", &asked.entrypoint, &got.entrypoint)?;
    same("Config.Cmd", &asked.cmd, &got.cmd)?;
    same("Config.Env", &sorted(asked.env.as_ref()), &sorted(got.env.as_ref()))?;
    same("Config.Volumes", &asked.volumes, &got.volumes)?;
    // Intervals of the image's own check stay behind and mean nothing without it.
    let test = |check: &Option<HealthConfig>| check.as_ref().and_then(|check| check.test.clone());
    same(
        "Config.Healthcheck.Test",
        &test(&asked.healthcheck),
        &test(&got.healthcheck),
    )?;
    same("Config.Tty", &asked.tty, &got.tty)?;
    same("Config.OpenStdin", &asked.open_stdin, &got.open_stdin)?;
    same("Config.NetworkDisabled", &asked.network_disabled, &got.network_disabled)?;
    same("Config.StopSignal", &asked.stop_signal, &got.stop_signal)?;
    let labels = got.labels.clone().unwrap_or_default();
    for (name, value) in asked.labels.iter().flatten() {
        same(&format!("Config.Labels.{name}"), &Some(value), &labels.get(name))?;
    }
    Ok(())
}

fn compare_host_config(asked: &ContainerCreateBody, got: &ContainerInspectResponse) -> Result<(), Difference> {
    let (asked, got) = (object(&asked.host_config), object(&got.host_config));
    let names: BTreeSet<&String> = asked.keys().chain(got.keys()).collect();
    for name in names {
        let (wanted, found) = (asked.get(name), got.get(name));
        let is_free = wanted.is_none() && FREE_FIELDS.iter().any(|(free, _)| free == name);
        let wanted = normal(name, wanted.cloned().unwrap_or_default());
        let found = normal(name, found.cloned().unwrap_or_default());
        if !is_free && wanted != found {
            return Err(difference(&format!("HostConfig.{name}"), &wanted, &found));
        }
    }
    Ok(())
}

/// The mounts that the container will have, exactly: none more, and each with its source, mode and propagation.
fn compare_mounts(asked: &ContainerCreateBody, got: &[MountPoint]) -> Result<(), Difference> {
    let asked = asked.host_config.iter().flat_map(|host| host.mounts.iter().flatten());
    let wanted: BTreeMap<String, String> = asked
        .map(|mount| {
            let propagation = mount.bind_options.as_ref().and_then(|options| options.propagation);
            let shape = shape(
                mount.source.as_deref(),
                mount.read_only != Some(true),
                propagation.as_ref().map(AsRef::as_ref),
                mount.typ.map(|kind| kind.to_string()),
            );
            (mount.target.clone().unwrap_or_default(), shape)
        })
        .collect();
    let found: BTreeMap<String, String> = got
        .iter()
        .map(|mount| {
            let kind = mount.typ.clone();
            let shape = shape(
                mount.source.as_deref(),
                mount.rw != Some(false),
                mount.propagation.as_deref(),
                kind,
            );
            (mount.destination.clone().unwrap_or_default(), shape)
        })
        .collect();
    if wanted.len() == found.len() && wanted.len() == got.len() && wanted == found {
        return Ok(());
    }
    let targets: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let target = targets
        .into_iter()
        .find(|target| wanted.get(*target) != found.get(*target));
    let at = |mounts: &BTreeMap<String, String>| target.and_then(|target| mounts.get(target).cloned());
    let field = format!("Mounts[{}]", target.map_or("", String::as_str));
    Err(difference(&field, &Value::from(at(&wanted)), &Value::from(at(&found))))
}

fn shape(source: Option<&str>, writable: bool, propagation: Option<&str>, kind: Option<String>) -> String {
    let mode = if writable { "rw" } else { "ro" };
    format!(
        "{} {} {mode} {}",
        kind.unwrap_or_default(),
        source.unwrap_or_default(),
        propagation.unwrap_or_default()
    )
}

fn object<T: serde::Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn same<T: serde::Serialize, U: serde::Serialize>(field: &str, asked: &T, got: &U) -> Result<(), Difference> {
    let asked = bare(serde_json::to_value(asked).unwrap_or_default());
    let got = bare(serde_json::to_value(got).unwrap_or_default());
    if asked == got {
        Ok(())
    } else {
        Err(difference(field, &asked, &got))
    }
}

fn difference(field: &str, asked: &Value, got: &Value) -> Difference {
    let show = |value: &Value| value.to_string().chars().take(SHOWN_CHARS_MAX).collect();
    Difference {
        field: field.to_owned(),
        asked: show(asked),
        got: show(got),
    }
}

fn sorted(list: Option<&Vec<String>>) -> Vec<String> {
    let mut list = list.cloned().unwrap_or_default();
    list.sort();
    list
}

/// A field's value in the one form in which equal meanings are equal.
fn normal(name: &str, value: Value) -> Value {
    match (name, bare(value)) {
        // Engines echo capabilities with or without the prefix, in their own order; the order of paths means nothing either.
        ("CapAdd" | "CapDrop" | "MaskedPaths" | "ReadonlyPaths", Value::Array(items)) => {
            let mut names: Vec<String> = items
                .iter()
                .filter_map(Value::as_str)
                .map(|item| item.strip_prefix("CAP_").unwrap_or(item).to_owned())
                .collect();
            names.sort();
            names.into()
        }
        // Minus one is "not set".
        ("MemorySwappiness", Value::Number(number)) if number.as_i64() == Some(-1) => Value::Null,
        (_, value) => value,
    }
}

/// Without what is empty: null, false, 0, "", and lists and objects of nothing. Docker shows an unset field as any of them.
fn bare(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    };
    let value = match value {
        Value::Array(items) => Value::Array(items.into_iter().map(bare).collect()),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, bare(value)))
            .filter(|(_, value)| !is_empty(value))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    };
    if is_empty(&value) { Value::Null } else { value }
}
