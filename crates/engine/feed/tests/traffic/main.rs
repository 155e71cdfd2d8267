//! From a control plane's bytes to what clients and upstreams see: decoding, warming and the data
//! path together, over real sockets.

mod proxy;

mod refusals;
mod warming;
