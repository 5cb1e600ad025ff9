//! The HTTP API, in the shapes of contract section 3.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use evows_core::access::{Compat, Identity};
use evows_core::http::error_response;
use serde_json::{Map, Value, json};

use super::UnknownInstances;
use super::body;
use super::registry::{Entry, Refused, Registry};
use super::row::{Row, token};
use super::validation::{self, Body, Faults, INTEGRATIONS, Names};

type Shared = State<Arc<Registry>>;

/// The instance that the path names, percent-decoded.
struct Name(String);

/// The routes below `/websocket`.
pub(super) fn websocket(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/websocket/set/{instance}", post(set))
        .route("/websocket/find/{instance}", get(find))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .with_state(registry)
}

/// The routes below `/instance`.
pub(super) fn instance(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/instance/create", post(create))
        .route("/instance/fetchInstances", get(fetch))
        .route("/instance/connectionState/{instance}", get(state))
        .route("/instance/delete/{instance}", delete(remove))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .with_state(registry)
}

/// The routes below `/webhook/set` and `/webhook/find`: what an instance's own webhook is set to.
pub(super) fn webhook(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/webhook/set/{instance}", post(set_webhook))
        .route("/webhook/find/{instance}", get(find_webhook))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .with_state(registry)
}

async fn set_webhook(
    State(registry): Shared,
    Name(name): Name,
    request: Request,
) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    let creates = registry.unknown == UnknownInstances::Create;
    let caller = guard(&registry, &parts.headers, &name, creates)?;
    let body = body::read(&parts.headers, body).await?;
    let setting = validation::webhook(&body, names(&registry)).map_err(invalid)?;
    let creates = creates && matches!(caller, Identity::Global);
    let change = |row: &mut Row| row.set_webhook(setting);
    let row = registry.set(name, change, creates).await?;
    Ok((StatusCode::CREATED, Json(row.webhook_json())).into_response())
}

async fn find_webhook(
    State(registry): Shared,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let entry = known(&registry, &headers, name)?;
    Ok(Json(entry.row.webhook_json()).into_response())
}

async fn set(
    State(registry): Shared,
    Name(name): Name,
    request: Request,
) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    let creates = registry.unknown == UnknownInstances::Create;
    let caller = guard(&registry, &parts.headers, &name, creates)?;
    let body = body::read(&parts.headers, body).await?;
    let setting = validation::setting(&body, names(&registry)).map_err(invalid)?;
    let creates = creates && matches!(caller, Identity::Global);
    let change = |row: &mut Row| row.set(setting);
    let row = registry.set(name, change, creates).await?;
    Ok((StatusCode::CREATED, Json(row.websocket_json())).into_response())
}

async fn find(
    State(registry): Shared,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let entry = known(&registry, &headers, name)?;
    Ok(Json(entry.row.websocket_json()).into_response())
}

async fn state(
    State(registry): Shared,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let entry = known(&registry, &headers, name)?;
    let mut instance = Map::new();
    instance.insert("instanceName".to_owned(), json!(entry.row.name));
    if let Some(state) = entry.state() {
        instance.insert("state".to_owned(), json!(state));
    }
    Ok(Json(json!({ "instance": instance })).into_response())
}

async fn remove(
    State(registry): Shared,
    Name(name): Name,
    headers: HeaderMap,
) -> Result<Response, Response> {
    guard(&registry, &headers, &name, false)?;
    registry.delete(name).await?;
    let body = json!({
        "status": "SUCCESS",
        "error": false,
        "response": { "message": "Instance deleted" },
    });
    Ok(Json(body).into_response())
}

async fn fetch(
    State(registry): Shared,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let caller = identify(&registry, &headers).ok_or_else(unauthorized)?;
    let query = uri.query().unwrap_or_default();
    let wanted = |key: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(name, value)| (name == key && !value.is_empty()).then_some(value))
    };
    let (name, id) = (wanted("instanceName"), wanted("instanceId"));
    let rows: Vec<_> = registry
        .entries()
        .into_iter()
        .filter(|entry| registry.access.may_manage(&caller, &entry.row.name))
        .filter(|entry| name.as_ref().is_none_or(|name| **name == *entry.row.name))
        .filter(|entry| id.as_ref().is_none_or(|id| **id == *entry.row.id))
        .map(|entry| entry.row.json(entry.state()))
        .collect();
    match (name.or(id), caller) {
        (Some(_), Identity::Instance(_)) if rows.is_empty() => Err(unauthorized()),
        (Some(wanted), Identity::Global) if rows.is_empty() => Err(error_response(
            StatusCode::NOT_FOUND,
            vec![format!("Instance \"{wanted}\" not found")],
        )),
        _ => Ok(Json(rows).into_response()),
    }
}

async fn create(State(registry): Shared, request: Request) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    let identity = identify(&registry, &parts.headers);
    let may_create = matches!(identity, Some(Identity::Global));
    if !may_create && registry.access.compat() == Compat::Strict {
        return Err(unauthorized());
    }
    let body = body::read(&parts.headers, body).await?;
    // The original tells that a name is taken before it looks at the key.
    let name = body.get("instanceName").and_then(Value::as_str);
    if let Some(name) = name.filter(|name| registry.get(name).is_some()) {
        return Err(Refused::NameTaken(name.to_owned()).into());
    }
    if !may_create {
        return Err(unauthorized());
    }
    let asked = validation::creation(&body).map_err(invalid)?;
    let mut row = Row::new(&asked.name, &asked.token.unwrap_or_else(token));
    if let Some(integration) = asked.integration {
        if !INTEGRATIONS.contains(&&*integration) {
            return Err(bad_request("Invalid integration"));
        }
        row.integration = integration;
    }
    row.number = asked.number;
    let names = match registry.access.compat() {
        Compat::Strict => Names::WithGroupsUpdate,
        Compat::Evolution => Names::Any,
    };
    if let Some(setting) = validation::embedded(&body, names).map_err(invalid)? {
        row.set(setting);
    }
    if let Some(setting) = validation::embedded_webhook(&body, names).map_err(invalid)? {
        row.set_webhook(setting);
    }
    let entry = registry.create(row).await?;
    Ok((StatusCode::CREATED, Json(created(&entry, &body))).into_response())
}

/// The answer to a creation.
fn created(entry: &Entry, body: &Body) -> Value {
    let row = &entry.row;
    let flag = |key: &str| body.get(key) == Some(&Value::Bool(true));
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let websocket = match &row.websocket {
        Some(set) => json!({ "enabled": set.enabled }),
        None => json!({}),
    };
    let webhook = match &row.webhook {
        Some(set) => json!({
            "webhookUrl": set.url,
            "webhookHeaders": set.headers,
            "webhookByEvents": set.by_events,
            "webhookBase64": set.base64,
        }),
        None => json!({}),
    };
    json!({
        "instance": {
            "instanceName": row.name,
            "instanceId": row.id,
            "integration": row.integration,
            "webhookWaBusiness": null,
            "accessTokenWaBusiness": "",
            "status": entry.state().unwrap_or("close"),
        },
        "hash": row.token,
        "webhook": webhook,
        "websocket": websocket,
        "rabbitmq": {},
        "nats": {},
        "sqs": {},
        "settings": {
            "rejectCall": flag("rejectCall"),
            "msgCall": text("msgCall"),
            "groupsIgnore": flag("groupsIgnore"),
            "alwaysOnline": flag("alwaysOnline"),
            "readMessages": flag("readMessages"),
            "readStatus": flag("readStatus"),
            "syncFullHistory": flag("syncFullHistory"),
            "wavoipToken": text("wavoipToken"),
        },
    })
}

async fn no_route(method: Method, uri: Uri) -> Response {
    let message = format!("Cannot {method} {uri}");
    error_response(StatusCode::NOT_FOUND, vec![message])
}

/// Whose key the request carries.
fn identify(registry: &Registry, headers: &HeaderMap) -> Option<Identity> {
    let key = headers.get("apikey")?.to_str().ok()?;
    registry.access.identify(key)
}

/// Lets a request for one instance pass, or says what to answer.
///
/// The original looks for the instance before it looks at the key, which tells strangers which instances
/// there are. That order is kept under `compat = "evolution"` only.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn guard(
    registry: &Registry,
    headers: &HeaderMap,
    name: &str,
    creates: bool,
) -> Result<Identity, Response> {
    let caller =
        identify(registry, headers).filter(|caller| registry.access.may_manage(caller, name));
    let exists = registry.get(name).is_some();
    match caller {
        Some(Identity::Global) if exists || creates => Ok(Identity::Global),
        Some(caller) if exists => Ok(caller),
        None if exists || registry.access.compat() == Compat::Strict => Err(unauthorized()),
        _ => Err(Refused::Unknown(name.to_owned()).into()),
    }
}

/// The instance, if the caller may see it.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn known(registry: &Registry, headers: &HeaderMap, name: String) -> Result<Entry, Response> {
    guard(registry, headers, &name, false)?;
    let entry = registry.entry(&name);
    // It may have been deleted since the guard looked.
    entry.ok_or_else(|| Refused::Unknown(name).into())
}

fn names(registry: &Registry) -> Names {
    match registry.access.compat() {
        Compat::Strict => Names::WithGroupsUpdate,
        Compat::Evolution => Names::Listed,
    }
}

fn unauthorized() -> Response {
    error_response(StatusCode::UNAUTHORIZED, "Unauthorized")
}

fn bad_request(message: &str) -> Response {
    error_response(StatusCode::BAD_REQUEST, vec![message])
}

/// The original nests the faults twice.
fn invalid(faults: Faults) -> Response {
    error_response(StatusCode::BAD_REQUEST, vec![Value::from(faults)])
}

// === impl Refused ===

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        let status = match refused {
            Refused::Unknown(_) => StatusCode::NOT_FOUND,
            Refused::NameTaken(_) | Refused::TokenTaken => StatusCode::FORBIDDEN,
            Refused::Name { .. } => StatusCode::BAD_REQUEST,
            Refused::Closed => {
                let mut response = error_response(StatusCode::SERVICE_UNAVAILABLE, message);
                let after = header::HeaderValue::from_static("1");
                response.headers_mut().insert(header::RETRY_AFTER, after);
                return response;
            }
            Refused::Store(_) | Refused::Interrupted(_) => {
                tracing::error!(error = %message, "cannot change an instance");
                return error_response(StatusCode::INTERNAL_SERVER_ERROR, message);
            }
        };
        error_response(status, vec![message])
    }
}

// === impl Name ===

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name))
            .map_err(|rejection| bad_request(&rejection.body_text()))
    }
}
