//! The connection to the API that holds the objects: today the one-machine runtime's Unix socket.
//!
//! It speaks the Kubernetes API's protocol, so the rest of the control plane has one `kube::Client`
//! and would not notice a real API server in its place.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use kube::client::{Client, ConfigExt};
use tokio::net::UnixStream;
use tower::{BoxError, ServiceBuilder, service_fn};

use crate::error::ControlError;

/// Where the objects are.
#[derive(Debug, Clone)]
pub enum ApiAddress {
    /// The one-machine runtime.
    UnixSocket(PathBuf),
}

/// A client for the API at `address`. Connects on first use.
pub fn connect(address: &ApiAddress) -> Result<Client, ControlError> {
    let ApiAddress::UnixSocket(path) = address;
    let path = path.clone();
    let connector = service_fn(move |_: http::Uri| {
        let path = path.clone();
        Box::pin(async move {
            UnixStream::connect(path)
                .await
                .map(|stream| UnixIo(TokioIo::new(stream)))
        })
    });
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, kube::client::Body>(connector);
    let config = kube::Config::new(
        "http://localhost"
            .parse()
            .map_err(|_| ControlError::Bug("the API's base address"))?,
    );
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// A Unix stream as hyper's legacy client wants it.
struct UnixIo(TokioIo<UnixStream>);

impl Connection for UnixIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for UnixIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for UnixIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
