//! The end of a downstream connection whose client may still be sending.
//!
//! A socket that is closed with bytes unread sends a reset, and a reset that overtakes the answer
//! takes it away from the client: one that uploads sees a broken pipe in place of 403 or 413. So
//! what is to be closed first says that nothing more comes, and then reads what the client sends
//! and throws it away, until the client closes too or `delayed_close_timeout` is over (RFC 9112
//! §9.6; Envoy's delayed close).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is read at once, to be thrown away.
const BUFFER_BYTES: usize = 16 << 10;

/// Ends a connection in order; `None`: the limit is switched off, and the connection closes at
/// once.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, limit: Option<Duration>) {
    let Some(limit) = limit else { return };
    let closing = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    // Whether the client was done in time makes no difference.
    let _ = tokio::time::timeout(limit, closing).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn what_the_client_still_sends_is_read_until_it_closes() {
        let (mut client, server) = duplex(64);
        let closing = close(server, Some(Duration::from_secs(60)));
        let uploading = async {
            assert_eq!(
                client.read(&mut [0; 8]).await.unwrap(),
                0,
                "it is told at once"
            );
            client.write_all(&[7; 10_000]).await.unwrap();
            drop(client);
        };
        tokio::join!(closing, uploading);
    }

    #[tokio::test]
    async fn a_client_that_stays_is_left_when_time_is_up() {
        let limit = Duration::from_millis(20);
        let (client, server) = duplex(64);
        let begun = tokio::time::Instant::now();
        close(server, Some(limit)).await;
        assert!(begun.elapsed() >= limit);
        drop(client);
    }
}
