//! One request on its way, with the handles that carry it.
//!
//! An [`Exchange`] is made when a request's head was read and ends in exactly one report: when the
//! last byte of the response was handed to the downstream's codec, or when it is dropped before
//! that because the downstream went away ([`finish`]). The request itself is a [`Request`], which
//! filters see and change; [`forward`] carries it to an upstream; [`reply`] is what answers it.

use std::{sync::Arc, time::Duration};

use crate::{
    config::Config, connection::Connection, endpoint::LiveEndpoint, listener::LiveHttp,
    request::Request, upstream::cluster::LiveCluster, worker::Worker,
};

pub mod attempt;
pub mod finish;
pub mod forward;
pub mod mirror;
pub mod plan;
pub mod refusal;
pub mod reply;
pub mod upgrade;

/// A request and what it runs on.
pub struct Exchange {
    pub request: Request,
    pub worker: Arc<Worker>,
    pub connection: Arc<Connection>,
    pub http: Arc<LiveHttp>,
    /// The one version of configuration that this request sees.
    pub config: Arc<Config>,
    /// The cluster that was chosen; its configuration is the request's, too.
    pub cluster: Option<Arc<LiveCluster>>,
    /// The host of the last attempt.
    pub host: Option<Arc<LiveEndpoint>>,
    /// The reporters have the record.
    pub(super) reported: bool,
}

impl Exchange {
    /// A request that begins now, under the configuration that is in force now.
    pub fn new(
        request: Request,
        worker: Arc<Worker>,
        connection: Arc<Connection>,
        http: Arc<LiveHttp>,
    ) -> Box<Self> {
        Box::new(Self {
            request,
            config: worker.live.config(),
            worker,
            connection,
            http,
            cluster: None,
            host: None,
            reported: false,
        })
    }

    /// Chooses the cluster, or none.
    pub fn set_cluster(&mut self, cluster: Option<Arc<LiveCluster>>) {
        self.request.cluster = cluster.as_ref().map(|cluster| cluster.config.clone());
        self.cluster = cluster;
    }

    /// Time since the request began.
    pub fn elapsed(&self) -> Duration {
        self.worker
            .live
            .clock
            .now()
            .saturating_duration_since(self.request.started)
    }

    pub fn is_reported(&self) -> bool {
        self.reported
    }
}
