use super::*;

fn p(index: u16) -> PartitionId {
    PartitionId::new(index).unwrap()
}

fn tenant(n: u8) -> TenantId {
    TenantId::from_bytes([n; 16])
}

fn wf(n: u8) -> WorkflowId {
    WorkflowId::from_bytes([n; 16])
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn keys_round_trip() {
    let task_id = TaskId::from_bytes([9; 16]);
    let node_id = NodeId::from_bytes([8; 16]);
    let upload_id = UploadId::from_bytes([6; 16]);
    let (partition, t, w) = (p(4095), tenant(3), wf(4));
    let cases = [
        (
            log(partition, u64::MAX, t),
            Parsed::Log {
                partition,
                first_seq: u64::MAX,
                tenant: t,
            },
        ),
        (
            data_key(partition, t, w),
            Parsed::DataKey {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            workflow(partition, t, w),
            Parsed::Workflow {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            task(partition, t, w, task_id),
            Parsed::Task {
                partition,
                tenant: t,
                workflow: w,
                task: task_id,
            },
        ),
        (
            active(partition, t, w),
            Parsed::Active {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            timeline(partition, t, w, 7),
            Parsed::Timeline {
                partition,
                tenant: t,
                workflow: w,
                first_seq: 7,
            },
        ),
        (
            idempotency(partition, t, &[5; 32]),
            Parsed::Idempotency {
                partition,
                tenant: t,
                key_hash: [5; 32],
            },
        ),
        (
            node(partition, t, node_id),
            Parsed::Node {
                partition,
                tenant: t,
                node: node_id,
            },
        ),
        (
            archive(partition, t, 5, 20_000, 3, 17, 2),
            Parsed::Archive {
                partition,
                tenant: t,
                table: 5,
                day: 20_000,
                epoch: 3,
                from_seq: 17,
                generation: 2,
            },
        ),
        (sealed(partition, t), Parsed::Sealed { partition, tenant: t }),
        (
            outbox(partition, t, p(9), 6),
            Parsed::Outbox {
                partition,
                tenant: t,
                to: p(9),
                number: 6,
            },
        ),
        (
            limit_rate(partition, t, &[6; 16]),
            Parsed::LimitRate {
                partition,
                tenant: t,
                limit: [6; 16],
            },
        ),
        (
            limit_claim(partition, t, &[6; 16], w, TaskId::nil()),
            Parsed::LimitClaim {
                partition,
                tenant: t,
                limit: [6; 16],
                workflow: w,
                task: TaskId::nil(),
            },
        ),
        (
            paused_scope(partition, t, &[8; 16]),
            Parsed::PausedScope {
                partition,
                tenant: t,
                scope: [8; 16],
            },
        ),
        (sent(partition, p(8)), Parsed::Sent { partition, to: p(8) }),
        (received(partition, p(7)), Parsed::Received { partition, from: p(7) }),
        (
            closed(partition, t, 4, w),
            Parsed::Closed {
                partition,
                tenant: t,
                state: 4,
                workflow: w,
            },
        ),
        (
            ended(partition, t, 9, w),
            Parsed::Ended {
                partition,
                tenant: t,
                end_seq: 9,
                workflow: w,
            },
        ),
        (
            hold(partition, t, w),
            Parsed::Hold {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            erased(partition, t, w),
            Parsed::Erased {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            destroy(partition, t, w),
            Parsed::Destroy {
                partition,
                tenant: t,
                workflow: w,
            },
        ),
        (
            upload(partition, t, upload_id),
            Parsed::Upload {
                partition,
                tenant: t,
                upload: upload_id,
            },
        ),
    ];
    for (key, parsed) in cases {
        assert_eq!(parse(&key), Some(parsed));
        assert!(belongs_to(&key, partition) && !belongs_to(&key, p(1)));
        assert_eq!(parse(&key[..key.len() - 1]), None, "short {parsed:?}");
        let mut long = key.to_vec();
        long.push(0);
        assert_eq!(parse(&long), None, "long {parsed:?}");
    }
    assert_eq!(parse(&meta::epoch(p(1))), None);
    assert!(!belongs_to(&meta::epoch(p(1)), p(1)));
}

#[test]
fn log_order_is_partition_then_sequence_whatever_the_tenant() {
    let mut keys = [
        log(p(2), 1, tenant(0)),
        log(p(1), 256, tenant(0)),
        log(p(1), 255, tenant(9)),
        log(p(1), 2, tenant(5)),
        log(p(1), 1, tenant(200)),
    ];
    keys.sort();
    let order: Vec<_> = keys.iter().map(|key| parse(key).unwrap()).collect();
    let seqs: Vec<_> = order
        .iter()
        .map(|parsed| match parsed {
            Parsed::Log {
                partition, first_seq, ..
            } => (partition.index(), *first_seq),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seqs, [(1, 1), (1, 2), (1, 255), (1, 256), (2, 1)]);
}

#[test]
fn ranges_hold_their_own_and_nothing_else() {
    let range = log_from(p(1), 5);
    let inside = |range: &KeyRange, key: &Bytes| range.from <= *key && *key < range.to;
    assert!(inside(&range, &log(p(1), 5, tenant(0))) && inside(&range, &log(p(1), u64::MAX, tenant(255))));
    assert!(!inside(&range, &log(p(1), 4, tenant(255))) && !inside(&range, &log(p(2), 5, tenant(0))));

    let through = log_through(p(1), 5);
    assert!(inside(&through, &log(p(1), 5, tenant(255))) && !inside(&through, &log(p(1), 6, tenant(0))));
    assert!(inside(&log_through(p(1), u64::MAX), &log(p(1), u64::MAX, tenant(255))));

    let tasks = tasks_of(p(1), tenant(1), wf(1));
    assert!(inside(
        &tasks,
        &task(p(1), tenant(1), wf(1), TaskId::from_bytes([255; 16]))
    ));
    assert!(!inside(
        &tasks,
        &task(p(1), tenant(1), wf(2), TaskId::from_bytes([0; 16]))
    ));
    assert!(!inside(
        &tasks,
        &task(p(1), tenant(2), wf(1), TaskId::from_bytes([0; 16]))
    ));

    let timeline_range = timeline_from(p(1), tenant(1), wf(255), 3);
    assert!(inside(&timeline_range, &timeline(p(1), tenant(1), wf(255), u64::MAX)));
    assert!(!inside(&timeline_range, &timeline(p(1), tenant(1), wf(255), 2)));
    assert!(!inside(&timeline_range, &timeline(p(1), tenant(2), wf(0), 9)));

    let rows = workflows_of(p(0xfff), tenant(0xff));
    assert!(inside(&rows, &workflow(p(0xfff), tenant(0xff), wf(0xff))));
    assert!(!inside(&rows, &data_key(p(0xfff), tenant(0xff), wf(0xff))));
    assert!(inside(
        &all_of(Kind::Active, p(3)),
        &active(p(3), tenant(0xff), wf(0xff))
    ));
    assert!(!inside(&all_of(Kind::Active, p(3)), &active(p(4), tenant(0), wf(0))));
}

#[test]
fn timeline_values_round_trip() {
    let offsets = vec![0, 1, 255, 65_535];
    assert_eq!(timeline_offsets(&timeline_value(&offsets).unwrap()), Some(offsets));
    assert_eq!(timeline_value(&[65_536]), None);
    assert_eq!(timeline_offsets(&[1]), None);
}
