//! Header changes of route tables, virtual hosts, routes and weighted clusters.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, response::Parts};
use proxy_config::header::{AppendMode, HeaderOperation, HeaderOperations, HeaderValueFormat};
use smallvec::SmallVec;
use telemetry::record::Record;

use crate::{headers::text, request::Request, route::Matched};

/// The operations of one direction that apply to a request, in the order of application; levels without any are left out.
type Levels = SmallVec<[Arc<[HeaderOperation]>; 4]>;

/// Applies the request's operations.
pub fn on_request(request: &mut Request) {
    let levels = levels(request, |operations| &operations.request);
    if levels.iter().any(|level| has_formats(level)) {
        note(request);
    }
    for level in &levels {
        if let Some(host) = apply(level, &mut request.head.headers, &request.record) {
            request.authority = host;
        }
    }
}

/// Applies the response's operations.
pub fn on_response(request: &mut Request, head: &mut Parts) {
    let headers = &mut head.headers;
    let levels = levels(request, |operations| &operations.response);
    if levels.iter().any(|level| has_formats(level)) {
        note(request);
        request.record.status = Some(head.status.as_u16());
        request.record.response_headers = Some(headers.clone());
    }
    for level in &levels {
        apply(level, headers, &request.record);
    }
}

/// Formats read from the record, which is otherwise filled when the request ends.
fn note(request: &mut Request) {
    request.record.request_headers = Some(request.head.headers.clone());
    if let Some(matched) = &request.route {
        request.record.route_name =
            Some(matched.route.name.clone()).filter(|name| !name.is_empty());
    }
    if let Some(cluster) = &request.cluster {
        request.record.upstream_cluster = Some(cluster.name.shared());
    }
}

/// The most specific level first; last, where the table says so: the last one wins.
fn levels(
    request: &Request,
    direction: impl Fn(&HeaderOperations) -> &Arc<[HeaderOperation]>,
) -> Levels {
    let Some(Matched {
        table,
        virtual_host,
        route,
    }) = &request.route
    else {
        return Levels::new();
    };
    let weighted = request
        .weighted_cluster()
        .map(|weighted| direction(&weighted.headers));
    let general = [&route.headers, &virtual_host.headers, &table.headers].map(direction);
    let mut levels: Levels = weighted
        .into_iter()
        .chain(general)
        .filter(|level| !level.is_empty())
        .cloned()
        .collect();
    if table.most_specific_header_mutations_wins {
        levels.reverse();
    }
    levels
}

fn has_formats(operations: &[HeaderOperation]) -> bool {
    operations.iter().any(|operation| match operation {
        HeaderOperation::Set { value, .. } | HeaderOperation::SetHost(value) => {
            matches!(value, HeaderValueFormat::Format(_))
        }
        HeaderOperation::Remove(_) => false,
    })
}

/// Applies operations in order. Returns the new host, if one was set.
pub fn apply(
    operations: &[HeaderOperation],
    headers: &mut HeaderMap,
    record: &Record,
) -> Option<HeaderValue> {
    let mut host = None;
    for operation in operations {
        match operation {
            HeaderOperation::Remove(name) => drop(headers.remove(name)),
            HeaderOperation::SetHost(format) => host = Some(render(format, record)),
            HeaderOperation::Set {
                name,
                value,
                mode,
                keep_empty,
            } => {
                let value = render(value, record);
                if !value.is_empty() || *keep_empty {
                    set(headers, name, value, *mode);
                }
            }
        }
    }
    host
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, mode: AppendMode) {
    match mode {
        AppendMode::AppendOrAdd => drop(headers.append(name, value)),
        AppendMode::OverwriteOrAdd => drop(headers.insert(name, value)),
        AppendMode::AddIfAbsent if headers.contains_key(name) => {}
        AppendMode::AddIfAbsent => drop(headers.insert(name, value)),
        AppendMode::OverwriteIfExists if headers.contains_key(name) => {
            drop(headers.insert(name, value))
        }
        AppendMode::OverwriteIfExists => {}
    }
}

fn render(format: &HeaderValueFormat, record: &Record) -> HeaderValue {
    match format {
        HeaderValueFormat::Literal(value) => value.clone(),
        HeaderValueFormat::Format(format) => {
            let mut out = String::new();
            format.write(record, &mut out);
            text(&out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_to(name: &'static str, value: &'static str, mode: AppendMode) -> HeaderOperation {
        HeaderOperation::Set {
            name: HeaderName::from_static(name),
            value: HeaderValueFormat::Literal(HeaderValue::from_static(value)),
            mode,
            keep_empty: false,
        }
    }

    #[test]
    fn each_mode_does_what_its_name_says() {
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("gone", HeaderValue::from_static("1"));
        let operations = [
            HeaderOperation::Remove(HeaderName::from_static("gone")),
            set_to("a", "2", AppendMode::AppendOrAdd),
            set_to("b", "1", AppendMode::AddIfAbsent),
            set_to("b", "2", AppendMode::AddIfAbsent),
            set_to("c", "1", AppendMode::OverwriteIfExists),
            set_to("d", "1", AppendMode::OverwriteOrAdd),
            set_to("d", "2", AppendMode::OverwriteIfExists),
            set_to("e", "", AppendMode::OverwriteOrAdd),
            HeaderOperation::SetHost(HeaderValueFormat::Literal(HeaderValue::from_static(
                "other",
            ))),
        ];
        let host = apply(&operations, &mut headers, &Record::default());
        let all = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(host.unwrap(), "other");
        assert_eq!(
            (all("a"), all("b"), all("c"), all("d")),
            (vec!["1", "2"], vec!["1"], vec![], vec!["2"])
        );
        assert!(!headers.contains_key("e") && !headers.contains_key("gone"));
    }
}
