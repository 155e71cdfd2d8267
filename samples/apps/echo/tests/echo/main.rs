//! The program as tests of the mesh use it: real processes on ports the system chose, reached by clients that are not ours where there is one
//! (hyper, tungstenite, rustls) and by its own load, WebSocket and gRPC clients.

mod clients;
mod connections;
mod httpbin;
mod server;
mod shape;
