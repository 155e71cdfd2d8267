//! The place where an ingester stands in an object, and the problems it has found so far.

use mesh_model::object::{Meta, Text};
use mesh_model::{Host, MeshConfig};
use wire_kube::path::FieldPath;

use crate::problem::{Problem, Severity, code};

/// State of ingesting one object.
pub struct Cx<'a> {
    pub mesh: &'a MeshConfig,
    pub meta: &'a Meta,
    path: FieldPath,
    problems: Vec<Problem>,
}

impl<'a> Cx<'a> {
    pub fn new(mesh: &'a MeshConfig, meta: &'a Meta) -> Self {
        Self {
            mesh,
            meta,
            path: FieldPath::default(),
            problems: Vec::new(),
        }
    }

    /// Ends with the problems, and whether one of them makes the object unusable.
    pub fn finish(self) -> (Vec<Problem>, bool) {
        let failed = self.problems.iter().any(|p| p.severity == Severity::Error);
        (self.problems, failed)
    }

    /// Does `work` inside a field.
    pub fn within<R>(&mut self, field: &str, work: impl FnOnce(&mut Self) -> R) -> R {
        self.path.enter_name(field);
        let result = work(self);
        self.path.leave();
        result
    }

    /// Does `work` for each entry of a list field.
    pub fn each<T, R>(
        &mut self,
        field: &str,
        items: impl IntoIterator<Item = T>,
        mut work: impl FnMut(&mut Self, T) -> R,
    ) -> Vec<R> {
        self.within(field, |cx| {
            let mut results = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                cx.path.enter_index(index);
                results.push(work(cx, item));
                cx.path.leave();
            }
            results
        })
    }

    /// Does `work` for each entry of a list field and keeps what came of it.
    pub fn collect<T, R>(
        &mut self,
        field: &str,
        items: impl IntoIterator<Item = T>,
        work: impl FnMut(&mut Self, T) -> Option<R>,
    ) -> Vec<R> {
        self.each(field, items, work)
            .into_iter()
            .flatten()
            .collect()
    }

    /// Does `work` inside an optional field.
    pub fn optional<T, R>(
        &mut self,
        field: &str,
        value: Option<T>,
        work: impl FnOnce(&mut Self, T) -> Option<R>,
    ) -> Option<R> {
        value.and_then(|value| self.within(field, |cx| work(cx, value)))
    }

    pub fn report(&mut self, severity: Severity, code: &'static str, message: impl Into<String>) {
        let path = self.path.as_str().to_owned();
        self.problems.push(Problem {
            severity,
            code,
            path,
            message: message.into(),
        });
    }

    /// The value here is not allowed.
    pub fn error(&mut self, message: impl Into<String>) {
        self.report(Severity::Error, code::INVALID, message);
    }

    /// The value of a field below is not allowed.
    pub fn error_at(&mut self, field: &str, message: impl Into<String>) {
        self.within(field, |cx| cx.error(message));
    }

    /// The value here is allowed but doubtful.
    pub fn warning(&mut self, message: impl Into<String>) {
        self.report(Severity::Warning, code::DOUBTFUL, message);
    }

    /// A field that is set and has no effect yet.
    pub fn unsupported(&mut self, field: &str, is_set: bool) {
        if is_set {
            self.within(field, |cx| {
                cx.report(
                    Severity::Warning,
                    code::UNSUPPORTED_FIELD,
                    format!("{field} is not supported yet and has no effect"),
                );
            });
        }
    }

    /// A field that is set and on its way out.
    pub fn deprecated(&mut self, field: &str, is_set: bool, instead: &str) {
        if is_set {
            self.within(field, |cx| {
                cx.report(
                    Severity::Warning,
                    code::DEPRECATED,
                    format!("deprecated: use {instead}"),
                )
            });
        }
    }

    /// The kind of the object that is read.
    pub fn kind(&self) -> &'a str {
        &self.meta.object.kind
    }

    /// The namespace of the object.
    pub fn namespace(&self) -> &'a Text {
        &self.meta.object.namespace
    }

    /// A host, with a short name made whole.
    pub fn host(&mut self, text: &str) -> Option<Host> {
        match Host::parse(text) {
            Ok(host) => Some(host.qualified(self.namespace(), &self.mesh.cluster_domain)),
            Err(e) => {
                self.error(e.to_string());
                None
            }
        }
    }

    /// A host in a field below.
    pub fn host_at(&mut self, field: &str, text: &str) -> Option<Host> {
        self.within(field, |cx| cx.host(text))
    }

    /// A port number, 1 to 65535.
    pub fn port_number(&mut self, number: u32) -> Option<u16> {
        match u16::try_from(number) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.error(format!("port {number}: must be from 1 to 65535"));
                None
            }
        }
    }
}
