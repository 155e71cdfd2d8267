//! The TCP echo: every byte comes back, or, with a prefix, every line with a word in front (Istio's tcp-echo: `world` → `hello world`).
//!
//! With a greeting the server speaks first, as mail and database servers do. Lines are at most [`MAX_LINE_BYTES`]; a longer one ends the connection.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Longest line with a prefix.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// How a TCP port behaves.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    /// Word in front of each line; bytes come back as they are where there is none.
    pub prefix: Option<String>,
    /// Said before anything is read.
    pub greeting: Option<String>,
}

/// Until the peer ends its side, which ends ours.
pub async fn converse<S: AsyncRead + AsyncWrite>(
    stream: S,
    conversation: &Conversation,
) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    if let Some(greeting) = &conversation.greeting {
        write.write_all(greeting.as_bytes()).await?;
        write.flush().await?;
    }
    match &conversation.prefix {
        Some(prefix) => lines(read, &mut write, prefix).await?,
        None => {
            tokio::io::copy(&mut { read }, &mut write).await?;
        }
    }
    write.shutdown().await
}

async fn lines(
    read: impl AsyncRead + Unpin,
    write: &mut (impl AsyncWrite + Unpin),
    prefix: &str,
) -> std::io::Result<()> {
    let mut read = BufReader::new(read);
    let mut answer = Vec::new();
    loop {
        answer.clear();
        answer.extend_from_slice(prefix.as_bytes());
        answer.push(b' ');
        let start = answer.len();
        (&mut read)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut answer)
            .await?;
        // A last line without its end is no line: the original drops it as well.
        if answer.len() == start || !answer.ends_with(b"\n") {
            return Ok(());
        }
        write.write_all(&answer).await?;
        write.flush().await?;
    }
}
