//! `GET /v1/events`: a page of history.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State as FromState};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use firehose_auth::{Auth, Identity, Verdict};
use firehose_log::{Cursor, Since, SinceError, format_time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Problem;
use crate::link;
use crate::query::EventsQuery;
use crate::router::{CURSOR, HEAD, State, now_us, set_cursor};
use crate::scan::{self, ScanError};
use crate::shares::Peer;
use crate::under_way::{self, Cut};

/// How long a request waits for its turn at the log before it is sent away with 429.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers with one page.
pub(crate) async fn list(
    FromState(state): FromState<State>,
    Extension(peer): Extension<Peer>,
    Extension(cut): Extension<Cut>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now_us = now_us();
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|error| Problem::bad_request(format!("the query cannot be read: {error}")))?;
    let query = EventsQuery::parse(&pairs, now_us)?;
    let reader = state.login.identify(&headers, peer).await?;
    let rules = state.login.access().current();
    check_filters(&rules, &reader, &query)?;
    // First the memory, then the log: else every request that waits would hold a page already.
    let share = share_of_memory(&state, peer).await?;
    let turn = tokio::time::timeout(TURN_TIMEOUT, state.pages.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many pages are being read: try again"));
    };
    let moves = Moves::of(&query, now_us);
    let asked = Arc::new(Asked { query, rules, reader, now_us, _turn: turn });
    let (page, under_way) = read(&state, &asked, &cut).await?;
    drop(asked);
    let lines = wants_lines(&headers);
    let (next, position, head) = (page.next, page.position, page.head);
    let body = if lines { page.into_ndjson() } else { page.into_json() };
    let mut response = hold(share, under_way, body).into_response();
    let link = next.map(|next| next_link(uri.path(), &pairs, &moves, &next));
    describe(&mut response, lines, link.as_deref());
    for (name, cursor) in [(&CURSOR, position), (&HEAD, head)] {
        if let Some(cursor) = cursor {
            set_cursor(&mut response, name, &cursor);
        }
    }
    Ok(response)
}

/// What a page is read for. Who reads holds it, so that a request that is given up keeps its turn until the disk is done
/// with it.
struct Asked {
    query: EventsQuery,
    rules: Arc<Auth>,
    reader: Identity,
    now_us: i64,
    _turn: OwnedSemaphorePermit,
}

/// Reads the page; again if an event of it was taken back meanwhile.
async fn read(
    state: &State,
    asked: &Arc<Asked>,
    cut: &Cut,
) -> Result<(scan::Page, Arc<under_way::Page>), Problem> {
    loop {
        let (log, asked) = (state.read.clone(), asked.clone());
        let under_way = Arc::new(state.under_way.begin());
        let reading = tokio::task::spawn_blocking(move || {
            let page = scan::page(log.as_ref(), &asked.query, &asked.rules, &asked.reader, asked.now_us);
            // In this order they are dropped, should nobody wait for them any more.
            (page, under_way)
        });
        let read =
            reading.await.map_err(|_| Problem::unavailable("the page could not be read: try again"))?;
        let (page, under_way) = (read.0.map_err(problem)?, read.1);
        if under_way.send(page.offsets().to_vec(), cut.clone()) {
            return Ok((page, under_way));
        }
        drop(page);
    }
}

/// What a page may take while it is read: its JSON once in pieces and once as a body.
const PAGE_KIB: u32 = ((2 * scan::PAGE_BYTES_MAX) >> 10) as u32;

/// A page with its share of the memory that all of them may take, until it is sent.
struct Unsent {
    body: Vec<u8>,
    _share: Share,
    _under_way: Arc<under_way::Page>,
}

/// Memory of its address, and of all.
struct Share {
    of_address: Option<OwnedSemaphorePermit>,
    of_all: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The memory of the largest page; waits until there is so much: first of the address's own, holding nothing else.
async fn share_of_memory(state: &State, peer: Peer) -> Result<Share, Problem> {
    let of_address = match state.unsent_kib_of.of(peer) {
        Some(own) => {
            Some(acquire_page(own, "too many pages are being sent to your address: try again").await?)
        }
        None => None,
    };
    let of_all = state.unsent_kib.clone();
    let of_all = acquire_page(of_all, "too many pages are being sent: try again").await?;
    Ok(Share { of_address, of_all })
}

async fn acquire_page(kib: Arc<Semaphore>, why_not: &'static str) -> Result<OwnedSemaphorePermit, Problem> {
    match tokio::time::timeout(TURN_TIMEOUT, kib.acquire_many_owned(PAGE_KIB)).await {
        Ok(Ok(share)) => Ok(share),
        _ => Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, why_not)),
    }
}

/// The body, with as much of the share as it needs until it is sent.
fn hold(mut share: Share, under_way: Arc<under_way::Page>, body: Vec<u8>) -> Bytes {
    let kib = (body.len() >> 10) + 1;
    for permit in share.of_address.iter_mut().chain([&mut share.of_all]) {
        drop(permit.split(permit.num_permits().saturating_sub(kib)));
    }
    Bytes::from_owner(Unsent { body, _share: share, _under_way: under_way })
}

/// What of the question the link to the next page depends on, with times that stay where they are from page to page.
struct Moves {
    descending: bool,
    since: Since,
    end_us: Option<i64>,
}

impl Moves {
    fn of(query: &EventsQuery, now_us: i64) -> Self {
        let since = match query.since {
            Since::Ago(ago) => {
                Since::At(now_us.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX)))
            }
            since => since,
        };
        Moves { descending: query.descending, since, end_us: query.end_us }
    }
}

/// A filter that is denied as a whole is refused, as SUBSCRIBE would be.
fn check_filters(rules: &Auth, reader: &Identity, query: &EventsQuery) -> Result<(), Problem> {
    for filter in &query.topics {
        if rules.read_verdict(reader, "", filter) == Verdict::Denied {
            let what = format!("{reader} may not read {:?}", filter.as_str());
            let code = if reader.is_anonymous() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            return Err(Problem::new(code, what));
        }
    }
    Ok(())
}

/// The headers that say what a page is, and where the next one is.
fn describe(response: &mut Response, lines: bool, link: Option<&str>) {
    let kind = if lines { "application/x-ndjson" } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization"));
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(link).ok()) {
        headers.insert(header::LINK, link);
    }
}

/// The same question from the next place on.
fn next_link(path: &str, pairs: &[(String, String)], moves: &Moves, next: &Cursor) -> String {
    let mut with = match moves.descending {
        false => vec![("since", next.encode())],
        true => vec![("before", next.encode()), ("since", moves.since.to_string())],
    };
    with.extend(moves.end_us.map(|end_us| ("end", format_time(end_us))));
    let with: Vec<_> = with.iter().map(|(name, value)| (*name, value.as_str())).collect();
    link::next(path, pairs, &["since", "start", "end", "before"], &with)
}

/// Whether the client prefers NDJSON: it names it before plain JSON.
fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds =
        accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
    let mut known = kinds.filter(|kind| {
        kind.eq_ignore_ascii_case("application/x-ndjson") || kind.eq_ignore_ascii_case("application/json")
    });
    known.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-ndjson"))
}

fn problem(error: ScanError) -> Problem {
    match error {
        ScanError::Since(SinceError::Io(why)) => {
            Problem::unavailable(format!("the log could not be read: {why}"))
        }
        ScanError::Since(error) => Problem::bad_request(error.to_string()),
        ScanError::Read(error) => Problem::unavailable(error.to_string()),
        ScanError::Gone(oldest) => {
            let oldest = oldest.encode();
            let mut problem = Problem::new(
                StatusCode::GONE,
                format!(
                    "the events after this cursor are gone: everything after {oldest} is still there; \
                     ask with since={oldest}, or with on_gap=continue to pass over what is gone"
                ),
            );
            problem.oldest = Some(oldest);
            problem
        }
    }
}
