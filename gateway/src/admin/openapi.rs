//! `/openapi.json`: the table of operations for programs, by OpenAPI 3.1.0.
//!
//! Nothing is described by hand: schemas are those of the types that are written and read.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operations::{Does, Gives, OPERATIONS, Operation};
use super::problem::Problem;

const SCHEMAS: &str = "/components/schemas";

/// The whole document.
pub fn description() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        })
    };
    let mut written = settings().for_serialize().into_generator();
    let mut read = settings().for_deserialize().into_generator();
    let problem = media("application/problem+json", Some(&written.subschema_for::<Problem>()));
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let method = operation.method().as_str().to_lowercase();
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[method] = described(operation, &problem, &mut written, &mut read);
    }
    let mut schemas = read.take_definitions(true);
    schemas.extend(written.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vestibule's admin endpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a gateway tells about itself, and how its configuration is changed while it runs.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "What the file `admin.token_file` holds; nothing where there is no such file.",
                },
            },
        },
    })
}

fn described(
    operation: &Operation,
    problem: &Value,
    written: &mut SchemaGenerator,
    read: &mut SchemaGenerator,
) -> Value {
    let schema = match operation.gives {
        Gives::Json(schema) => Some(schema(written)),
        Gives::Text | Gives::Metrics => None,
    };
    let content = media(operation.gives.media(), schema.as_ref());
    let mut responses = json!({
        "200": { "description": sentence(operation.summary), "content": content },
        "default": {
            "description": "Why it is not answered: no token (401), a web page elsewhere (403), another method (405), \
                            or a body that is too large (413) or wrong (400).",
            "content": problem,
        },
    });
    if operation.path == "/readyz" {
        responses["503"] = json!({ "description": "Clients are not to be sent here.", "content": content });
    }
    for (status, when) in operation.problems {
        responses[status.to_string()] = json!({ "description": when, "content": problem });
    }
    let mut told = json!({
        "operationId": operation.id,
        "summary": sentence(operation.summary),
        "responses": responses,
        // The empty one: without the token, where there is none.
        "security": if operation.is_public { json!([]) } else { json!([{ "token": [] }, {}]) },
    });
    if let Does::Change { takes, .. } = operation.does {
        let body = takes(read);
        told["requestBody"] = json!({ "required": false, "content": media("application/json", Some(&body)) });
    }
    told
}

fn media(media: &str, schema: Option<&Schema>) -> Value {
    let schema = schema.map_or_else(|| json!({ "type": "string" }), |schema| schema.clone().to_value());
    json!({ (media): { "schema": schema } })
}

fn sentence(summary: &str) -> String {
    let mut letters = summary.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
