//! `gantry-bench-peer ADDRESS`: the same work as the component `three` of tests/worker, on Restate's SDK.

use restate_sdk::prelude::*;

struct Bench;

#[restate_sdk::service]
impl Bench {
    #[handler]
    async fn three(&self, ctx: Context<'_>, _input: Json<u32>) -> Result<Json<u32>, HandlerError> {
        let mut sum = 0;
        for name in ["a", "b", "c"] {
            let Json(value) = ctx.run(|| async { Ok(Json(1u32)) }).name(name).await?;
            sum += value;
        }
        Ok(Json(sum))
    }

    #[handler]
    async fn noop(&self, _ctx: Context<'_>, input: Json<u32>) -> Result<Json<u32>, HandlerError> {
        Ok(input)
    }
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).expect("where to listen: 127.0.0.1:9080");
    let address = address.parse().expect("an address");
    HttpServer::new(Endpoint::builder().bind(Bench).build())
        .listen_and_serve(address)
        .await;
}
