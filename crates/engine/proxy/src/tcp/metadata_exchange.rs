//! Istio's metadata exchange over TCP: where ALPN `istio-peer-exchange` was negotiated, each side first sends who it is.
//!
//! A frame is a magic number and a length (both big-endian), then a `google.protobuf.Any` with a `Struct` of `x-envoy-peer-metadata` and
//! `x-envoy-peer-metadata-id`. The client sends first. Follows istio/proxy `tcp/metadata_exchange`.

use std::{io, sync::Arc};

use telemetry::record::Peer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::peers::{Own, message};

pub const ALPN: &str = "istio-peer-exchange";
const MAGIC: u32 = 0x3D23_0467;
/// A longer frame is refused.
const MAX_FRAME_BYTES: u32 = 64 << 10;

/// Tells the other side who we are.
pub async fn send<W: AsyncWrite + Unpin>(stream: &mut W, own: &Own) -> io::Result<()> {
    let id = own
        .id
        .as_ref()
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let body = message::encode_exchange(id, &own.peer);
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend(MAGIC.to_be_bytes());
    frame.extend(length.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Hears who the other side is. `None`: it sent a frame that tells nothing.
pub async fn receive<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Arc<Peer>>> {
    let (magic, length) = (stream.read_u32().await?, stream.read_u32().await?);
    if magic != MAGIC || length > MAX_FRAME_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no metadata exchange header",
        ));
    }
    let mut body = vec![0; usize::try_from(length).unwrap_or_default()];
    stream.read_exact(&mut body).await?;
    Ok(message::decode_exchange(&body).map(Arc::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_heard() {
        let peer = Arc::new(Peer {
            namespace: "default".into(),
            workload: "a".into(),
            workload_type: "pod".into(),
            ..Peer::default()
        });
        let own = Own {
            id: Some(http::HeaderValue::from_static("sidecar~a")),
            value: None,
            peer: peer.clone(),
        };
        let mut wire = Vec::new();
        send(&mut wire, &own).await.unwrap();
        assert_eq!(receive(&mut &wire[..]).await.unwrap(), Some(peer));
        assert!(receive(&mut &b"GET / HTTP/1.1\r\n"[..]).await.is_err());
    }
}
