//! Playbooks and their versions.

use gantry_directory::{Resource as R, Verb as V};
use gantry_engine::api::DefinitionView;
use http::Method;

use super::q;
use crate::dto::Paged;
use crate::dto::playbooks::{
    CreatePlaybookBody, CreatedPlaybookVersion, ImportAnswer, PlaybookBundle, PlaybookDiff, PlaybookVersionView,
    PlaybookView,
};
use crate::handlers::playbooks;
use crate::operation::Content::{Json, Other};
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

const MANY: &str = "/api/v1/playbooks";
const ONE: &str = "/api/v1/playbooks/{name}";
const VERSIONS: &str = "/api/v1/playbooks/{name}/versions";
const VERSION: &str = "/api/v1/playbooks/{name}/versions/{version}";

pub(super) fn operations() -> Vec<Operation> {
    let mut all = versions();
    all.extend(bundles());
    all.extend([
        Operation::guarded(
            Method::GET,
            MANY,
            "list_playbooks",
            (R::Playbook, V::List),
            "Playbooks, by name",
            playbooks::list,
        )
        .query(
            const {
                &[
                    q("archived", "`true`: only archived ones; default: only the others"),
                    q("cursor", "`next_cursor` of the page before"),
                    q("limit", "items of a page, 1 to 500, default 50"),
                ]
            },
        )
        .returns(200, &[Json(list_of::<Paged<PlaybookView>, PlaybookView>())]),
        Operation::guarded(
            Method::POST,
            MANY,
            "create_playbook_version",
            (R::Playbook, V::Create),
            "Make the next version of a playbook, and the playbook with its first",
            playbooks::create,
        )
        .body(Json(of::<CreatePlaybookBody>()))
        .returns(201, &[Json(of::<CreatedPlaybookVersion>())])
        .returns(200, &[Json(of::<CreatedPlaybookVersion>())]),
        Operation::guarded(
            Method::POST,
            MANY,
            "validate_playbook",
            (R::Playbook, V::Validate),
            "Check a definition and say what it would do",
            playbooks::validate,
        )
        .action("validate")
        .body(Json(of::<CreatePlaybookBody>()))
        .returns(200, &[Json(of::<DefinitionView>())]),
        Operation::guarded(
            Method::GET,
            ONE,
            "get_playbook",
            (R::Playbook, V::Get),
            "One playbook",
            playbooks::get,
        )
        .returns(200, &[Json(of::<PlaybookView>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "archive_playbook",
            (R::Playbook, V::Archive),
            "Let a playbook start nothing any more; what runs goes on",
            playbooks::archive,
        )
        .action("archive")
        .returns(200, &[Json(of::<PlaybookView>())]),
        Operation::guarded(
            Method::POST,
            ONE,
            "restore_playbook",
            (R::Playbook, V::Archive),
            "Take an archived playbook back",
            playbooks::restore,
        )
        .action("restore")
        .returns(200, &[Json(of::<PlaybookView>())]),
    ]);
    all
}

fn versions() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            VERSIONS,
            "list_playbook_versions",
            (R::Playbook, V::Get),
            "Versions of a playbook, newest first",
            playbooks::versions,
        )
        .query(super::PAGE)
        .returns(
            200,
            &[Json(list_of::<Paged<PlaybookVersionView>, PlaybookVersionView>())],
        ),
        Operation::guarded(
            Method::GET,
            VERSION,
            "get_playbook_version",
            (R::Playbook, V::Get),
            "One version; `latest` is the newest",
            playbooks::version,
        )
        .returns(200, &[Json(of::<PlaybookVersionView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/playbooks/{name}/versions/{version}/definition",
            "get_playbook_definition",
            (R::Playbook, V::Get),
            "The definition as its author wrote it",
            playbooks::definition,
        )
        .returns(200, &[Other("text/plain")]),
        Operation::guarded(
            Method::GET,
            "/api/v1/playbooks/{name}/versions/{version}/outline",
            "get_playbook_outline",
            (R::Playbook, V::Get),
            "What a version does: parameters, tasks, outputs",
            playbooks::outline,
        )
        .returns(200, &[Json(of::<DefinitionView>())]),
        Operation::guarded(
            Method::GET,
            "/api/v1/playbooks/{name}/diff",
            "diff_playbook",
            (R::Playbook, V::Get),
            "How two versions differ",
            playbooks::diff,
        )
        .query(
            const {
                &[
                    q("from", "the older version; default: the one before `to`"),
                    q("to", "the newer version; default: the newest"),
                ]
            },
        )
        .returns(200, &[Json(of::<PlaybookDiff>())]),
    ]
}

fn bundles() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            MANY,
            "export_playbooks",
            (R::Playbook, V::List),
            "Playbooks with all their versions, to import them elsewhere",
            playbooks::export,
        )
        .action("export")
        .query(
            const {
                &[q(
                    "name",
                    "only this one, may repeat; default: all that are not archived",
                )]
            },
        )
        .returns(200, &[Json(of::<PlaybookBundle>())]),
        Operation::guarded(
            Method::POST,
            MANY,
            "import_playbooks",
            (R::Playbook, V::Create),
            "Take playbooks from a bundle, all or none; repeating it changes nothing",
            playbooks::import,
        )
        .action("import")
        .body(Json(of::<PlaybookBundle>()))
        .returns(200, &[Json(of::<ImportAnswer>())]),
    ]
}
