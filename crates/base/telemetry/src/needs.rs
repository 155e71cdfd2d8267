//! Which parts of a request have to be kept until its record is finished.
//!
//! Log formats, filters, tags and expressions say what they read; the proxy keeps that much and no
//! more, so without a log nothing is copied.

use http::{HeaderMap, HeaderName};

/// Headers and metadata that configuration reads, so that the record need not hold more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    pub request: Vec<HeaderName>,
    pub response: Vec<HeaderName>,
    pub trailers: Vec<HeaderName>,
    /// Something reads header maps as a whole.
    pub all_headers: bool,
    /// Something reads metadata of route, cluster, host or listener.
    pub metadata: bool,
}

impl Needs {
    /// Joins two.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.request, &other.request),
            (&mut self.response, &other.response),
            (&mut self.trailers, &other.trailers),
        ] {
            theirs.iter().for_each(|name| add_name(mine, name.clone()));
        }
        self.all_headers |= other.all_headers;
        self.metadata |= other.metadata;
    }

    /// The wanted part of a request's headers; `None` when nothing is wanted.
    pub fn keep_request(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.keep(&self.request, headers)
    }

    /// The wanted part of a response's headers.
    pub fn keep_response(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.keep(&self.response, headers)
    }

    /// The wanted part of the trailers.
    pub fn keep_trailers(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.keep(&self.trailers, headers)
    }

    fn keep(&self, names: &[HeaderName], headers: &HeaderMap) -> Option<HeaderMap> {
        if self.all_headers {
            return Some(headers.clone());
        }
        if names.is_empty() {
            return None;
        }
        let mut kept = HeaderMap::with_capacity(names.len());
        for name in names {
            for value in headers.get_all(name) {
                kept.append(name.clone(), value.clone());
            }
        }
        Some(kept)
    }

    /// Adds a request header; `None`: all headers.
    pub fn add_request(&mut self, name: Option<&str>) {
        add_header(&mut self.request, &mut self.all_headers, name);
    }

    /// Adds a response header; `None`: all headers.
    pub fn add_response(&mut self, name: Option<&str>) {
        add_header(&mut self.response, &mut self.all_headers, name);
    }

    /// Adds a trailer; `None`: all headers.
    pub fn add_trailer(&mut self, name: Option<&str>) {
        add_header(&mut self.trailers, &mut self.all_headers, name);
    }
}

fn add_header(names: &mut Vec<HeaderName>, all: &mut bool, name: Option<&str>) {
    match name {
        None => *all = true,
        // Pseudo-headers are no header names: the record has them as fields.
        Some(name) => {
            if let Ok(name) = HeaderName::try_from(name) {
                add_name(names, name);
            }
        }
    }
}

fn add_name(names: &mut Vec<HeaderName>, name: HeaderName) {
    if !names.contains(&name) {
        names.push(name);
    }
}
