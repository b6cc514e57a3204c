//! Which path is answered by what.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State as FromState};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use firehose_log::{Cursor, Read};
use tokio::sync::Semaphore;

use crate::login::Login;
use crate::service::HttpConfig;
use crate::shares::Shares;
use crate::under_way::UnderWay;
use crate::{Problem, events};

/// The place up to which the answer's reader has seen everything.
pub(crate) static CURSOR: HeaderName = HeaderName::from_static("firehose-cursor");
/// The newest event when a page was read.
pub(crate) static HEAD: HeaderName = HeaderName::from_static("firehose-head");

/// How much memory all pages that are not sent yet may take, in KiB.
pub(crate) const UNSENT_KIB_MAX: u32 = 64 << 10;

/// How much of it those to one address may take, in KiB: two pages of the largest size.
pub(crate) const UNSENT_KIB_PER_ADDRESS_MAX: u32 = 16 << 10;

/// What the answers are made from.
#[derive(Clone)]
pub(crate) struct State {
    /// The log.
    pub read: Arc<dyn Read>,
    /// Who asks, and what they may read.
    pub login: Arc<Login>,
    /// So many pages are read at a time.
    pub pages: Arc<Semaphore>,
    /// So many KiB of pages wait for clients that read them slowly.
    pub unsent_kib: Arc<Semaphore>,
    /// And so many of each address.
    pub unsent_kib_of: Arc<Shares>,
    /// The pages that hold events.
    pub under_way: UnderWay,
}

impl State {
    /// For this configuration.
    pub(crate) fn new(config: &HttpConfig, under_way: UnderWay) -> Self {
        State {
            read: config.read.clone(),
            login: Arc::new(Login::new(config.access.clone())),
            pages: Arc::new(Semaphore::new(config.pages_max.max(1))),
            unsent_kib: Arc::new(Semaphore::new(UNSENT_KIB_MAX as usize)),
            unsent_kib_of: Arc::new(Shares::new(UNSENT_KIB_PER_ADDRESS_MAX as usize)),
            under_way,
        }
    }
}

/// The world's interface.
pub(crate) fn public(state: State) -> Router {
    let routes = Router::new().route("/v1/events", get(events::list)).route("/livez", get(livez));
    finish(routes, state)
}

/// The operator's interface.
pub(crate) fn admin(state: State) -> Router {
    finish(Router::new().route("/livez", get(livez)), state)
}

fn finish(routes: Router<State>, state: State) -> Router {
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), with_cursor))
        .with_state(state)
}

async fn livez() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

pub(crate) async fn not_found(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.uri().path()))
}

pub(crate) async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} is not possible here", request.method()))
}

/// Puts the newest event's cursor on an answer that has none of its own.
async fn with_cursor(FromState(state): FromState<State>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if !response.headers().contains_key(&CURSOR) {
        set_cursor(&mut response, &CURSOR, &newest(state.read.as_ref()));
    }
    response
}

/// Puts a cursor on an answer.
pub(crate) fn set_cursor(response: &mut Response, name: &HeaderName, cursor: &Cursor) {
    if let Ok(value) = HeaderValue::from_str(&cursor.encode()) {
        response.headers_mut().insert(name, value);
    }
}

/// The newest event's cursor, without waiting for a disk: if it is not in memory, its time is taken as now.
fn newest(log: &dyn Read) -> Cursor {
    let head = log.head();
    let time_us = match log.read(head, head, 1, firehose_log::Wait::No) {
        Ok(firehose_log::Chunk::Batches(batches)) => {
            batches.last().map_or_else(now_us, |batch| batch.time_us())
        }
        _ => now_us(),
    };
    log.cursor(head, time_us)
}

/// Now, in µs since the epoch.
pub(crate) fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
