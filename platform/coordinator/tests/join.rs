//! Who may speak for a node: the real directory, the real gRPC service, no engine yet.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::sync::Arc;

use gantry_coordinator::{Coordinator, CoordinatorConfig, NodeServer};
use gantry_directory::{Directory, NewNodeToken, SqliteDirectory};
use gantry_proto::v1::node_service_client::NodeServiceClient;
use gantry_proto::v1::{IdentifyRequest, NodeToServer, Register, node_to_server, server_to_node};
use gantry_proto::{ErrorCode, NODE_PROTOCOL, NodeId, PartitionId};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

async fn join(channel: &Channel, token: &SecretString, node: NodeId) -> Result<String, Status> {
    let register = Register {
        protocol: NODE_PROTOCOL,
        node,
        name: "builder".to_owned(),
        ..Register::default()
    };
    let first = NodeToServer {
        kind: Some(node_to_server::Kind::Register(register)),
    };
    let mut request = Request::new(tokio_stream::iter([first]));
    let bearer = format!("Bearer {}", token.expose_secret()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let mut answers = NodeServiceClient::new(channel.clone())
        .session(request)
        .await?
        .into_inner();
    match answers.message().await?.and_then(|answer| answer.kind) {
        Some(server_to_node::Kind::Refused(refused)) => Ok(refused.fault.code),
        other => panic!("without an engine every session is refused, got {other:?}"),
    }
}

#[tokio::test]
async fn a_token_speaks_for_the_node_that_it_joined_with_and_for_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(SqliteDirectory::open(dir.path().join("directory.db")).await.unwrap());
    let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
    let token = async |name: &str| {
        let new = NewNodeToken {
            tenant,
            name: name.to_owned(),
            shared: false,
            created_by: None,
        };
        directory.create_node_token(new).await.unwrap().token
    };
    let (first, second) = (token("first").await, token("second").await);

    let coordinator = Coordinator::new(CoordinatorConfig::default());
    let service = NodeServer::service(Arc::clone(&coordinator), Arc::clone(&directory) as Arc<dyn Directory>);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();

    let node = NodeId::new(1, PartitionId::default(), 1);
    // Let in as far as the engine, which is not there.
    let starting = ErrorCode::StorageUnavailable.as_str();
    assert_eq!(join(&channel, &first, node).await.unwrap(), starting);
    assert_eq!(
        join(&channel, &first, node).await.unwrap(),
        starting,
        "it may come back"
    );
    let refused = join(&channel, &second, node).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert_eq!(
        refused.metadata().get("gantry-error-code").unwrap(),
        ErrorCode::Forbidden.as_str()
    );
    let own = NodeId::new(1, PartitionId::default(), 2);
    assert_eq!(join(&channel, &second, own).await.unwrap(), starting);

    let identify = async |token: &SecretString| {
        let mut request = Request::new(IdentifyRequest {});
        let bearer = format!("Bearer {}", token.expose_secret()).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        NodeServiceClient::new(channel.clone()).identify(request).await
    };
    let told = identify(&second).await.unwrap().into_inner().installation;
    assert_eq!(told, directory.installation().to_string());

    let nobody = SecretString::from("gn_0000000000000_none".to_owned());
    assert_eq!(
        join(&channel, &nobody, own).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(identify(&nobody).await.unwrap_err().code(), Code::Unauthenticated);
    server.abort();
    coordinator.shutdown().await;
}
