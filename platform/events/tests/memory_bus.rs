//! What readers rely on: no lost wake, one pending hint at most, nothing kept for those who left.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use gantry_events::{EventBus, MemoryBus, Subscription, Topic};
use gantry_proto::{PartitionId, TenantId, WorkflowId};
use tokio::task::JoinSet;

fn tenant(n: u64) -> TenantId {
    TenantId::new(1, PartitionId::default(), n)
}

fn workflow(n: u64) -> Topic {
    Topic::Workflow(tenant(1), WorkflowId::new(1, PartitionId::default(), n))
}

/// Whether a hint is pending; takes it if so.
fn pending(subscription: &mut Subscription) -> bool {
    let changed = pin!(subscription.changed());
    changed.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[test]
fn a_hint_between_subscribing_and_waiting_is_not_lost() {
    let bus = MemoryBus::new();
    bus.publish(Topic::Nodes);
    let mut subscription = bus.subscribe(Topic::Nodes);
    assert!(
        !pending(&mut subscription),
        "what was published before is in storage already"
    );
    bus.publish(Topic::Nodes);
    assert!(pending(&mut subscription));
    assert!(!pending(&mut subscription));
}

#[test]
fn a_slow_reader_has_one_pending_hint() {
    let bus = MemoryBus::new();
    let mut subscription = bus.subscribe(workflow(1));
    for _ in 0..100_000 {
        bus.publish(workflow(1));
    }
    assert!(pending(&mut subscription));
    assert!(!pending(&mut subscription));
}

#[test]
fn topics_do_not_wake_each_other() {
    let bus = MemoryBus::new();
    let mut subscriptions = [
        workflow(1),
        workflow(2),
        Topic::Tenant(tenant(1)),
        Topic::Tenant(tenant(2)),
        Topic::Nodes,
    ]
    .map(|topic| bus.subscribe(topic));
    bus.publish(workflow(1));
    bus.publish(Topic::Tenant(tenant(2)));
    let woken: Vec<bool> = subscriptions.iter_mut().map(pending).collect();
    assert_eq!(woken, [true, false, false, true, false]);
}

#[test]
fn waiting_is_cancel_safe() {
    let bus = MemoryBus::new();
    let mut subscription = bus.subscribe(Topic::Nodes);
    {
        let mut waiting = pin!(subscription.changed());
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        bus.publish(Topic::Nodes);
    }
    assert!(
        pending(&mut subscription),
        "the hint that came while the future was dropped"
    );
}

#[test]
fn the_last_subscriber_takes_the_topic_with_it() {
    let bus = MemoryBus::new();
    let first = bus.subscribe(workflow(1));
    let second = bus.subscribe(workflow(1));
    drop(first);
    assert_eq!(bus.topics(), 1);
    drop(second);
    assert_eq!(bus.topics(), 0);
    bus.publish(workflow(1));
    assert_eq!(bus.topics(), 0, "publishing makes no topic");
}

/// 5,000 readers of 50 workflows follow a counter each, which stands for storage; every one sees the last value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_readers_see_everything() {
    const TOPICS: u64 = 50;
    const READERS: u64 = 5_000;
    const LAST: u64 = 200;
    let bus = MemoryBus::new();
    let storage: Arc<Vec<AtomicU64>> = Arc::new((0..TOPICS).map(|_| AtomicU64::new(0)).collect());
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let mut subscription = bus.subscribe(workflow(reader % TOPICS));
        let storage = Arc::clone(&storage);
        readers.spawn(async move {
            let mut reads = 0u64;
            loop {
                reads += 1;
                if storage[usize::try_from(reader % TOPICS).unwrap()].load(Ordering::Acquire) == LAST {
                    return reads;
                }
                subscription.changed().await;
            }
        });
    }
    for value in 1..=LAST {
        for topic in 0..TOPICS {
            storage[usize::try_from(topic).unwrap()].store(value, Ordering::Release);
            bus.publish(workflow(topic));
        }
        tokio::task::yield_now().await;
    }
    while let Some(reads) = readers.join_next().await {
        assert!(reads.unwrap() <= LAST + 1, "no more reads than publications");
    }
    assert_eq!(bus.topics(), 0);
}

/// Subscribing and leaving race with publishing: whoever subscribed before a publication hears it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_and_going_loses_no_hint() {
    let bus = MemoryBus::new();
    let value = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (bus, value) = (bus.clone(), Arc::clone(&value));
        tasks.spawn(async move {
            for _ in 0..2_000 {
                let mut subscription = bus.subscribe(Topic::Nodes);
                let before = value.fetch_add(1, Ordering::SeqCst);
                bus.publish(Topic::Nodes);
                subscription.changed().await;
                assert!(value.load(Ordering::SeqCst) > before);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(bus.topics(), 0);
}
