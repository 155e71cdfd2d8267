//! The application's own metrics, for the merged scrape on 15020 (`prometheus.io/*` annotations of
//! the pod, row OBS-001).

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// A scrape of the application that takes longer is left out of the merged metrics.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Istio's cap of an application's answer.
const MAX_BYTES: usize = 10 << 20;

/// Where the application serves them.
#[derive(Debug, Clone)]
pub struct Application {
    pub port: u16,
    pub path: String,
}

impl Application {
    /// The application's text. An error is a comment that says why there is none.
    pub async fn metrics(&self) -> Result<String, String> {
        match timeout(TIMEOUT, self.fetch()).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(format!(
                "# the application's metrics on port {} could not be read: {error}\n",
                self.port
            )),
            Err(_) => Err(format!(
                "# the application's metrics on port {} took longer than {} s\n",
                self.port,
                TIMEOUT.as_secs()
            )),
        }
    }

    async fn fetch(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // task: the connection of one scrape of the application; aborted after the answer, ends
        // with the scrape's time limit
        let driver = tokio::spawn(connection);
        let uri: Uri = self.path.parse()?;
        let request = Request::get(uri)
            .header("host", format!("localhost:{}", self.port))
            // What it says is merged with ours, which is in this format; exemplars of OpenMetrics
            // would break it.
            .header("accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await?
            .to_bytes();
        driver.abort();
        if !status.is_success() {
            return Err(format!("it answered {status}").into());
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
