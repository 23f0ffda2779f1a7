use gantry_proto::{PartitionId, WorkflowId};

use super::*;

fn tenant(number: u64) -> TenantId {
    TenantId::new(1, PartitionId::default(), number)
}

fn task(number: u64) -> TaskRef {
    (WorkflowId::new(1, PartitionId::default(), number), 0)
}

fn class(number: u8) -> Class {
    Class {
        wants: [number; 16],
        bound: None,
    }
}

/// Places one after the other until nothing is left or `limit` is reached.
fn drain(queue: &mut Queue, limit: usize) -> Vec<(TaskRef, TenantId)> {
    let mut order = Vec::new();
    while order.len() < limit
        && let Some((task, tenant, _)) = queue.next(&Passed::default())
    {
        queue.charge(tenant);
        queue.remove(task);
        order.push((task, tenant));
    }
    order
}

#[test]
fn shares_follow_weights_however_long_the_lines_are() {
    let mut queue = Queue::default();
    queue.weigh(Arc::new(BTreeMap::from([(tenant(1), 1), (tenant(2), 3)])));
    for number in 0..1_000 {
        queue.insert(tenant(1), class(0), number, task(number));
    }
    for number in 1_000..1_300 {
        queue.insert(tenant(2), class(0), number, task(number));
    }
    let first = drain(&mut queue, 400);
    let of_two = first.iter().filter(|(_, each)| *each == tenant(2)).count();
    assert!((299..=300).contains(&of_two), "{of_two}");
    assert_eq!(drain(&mut queue, 2_000).len(), 900, "the rest is the other's alone");
}

#[test]
fn who_comes_late_gets_its_share_from_now_on() {
    let mut queue = Queue::default();
    for number in 0..100 {
        queue.insert(tenant(1), class(0), number, task(number));
    }
    drain(&mut queue, 50);
    for number in 100..200 {
        queue.insert(tenant(2), class(0), number, task(number));
    }
    let next = drain(&mut queue, 20);
    let late = next.iter().filter(|(_, each)| *each == tenant(2)).count();
    assert!((9..=11).contains(&late), "{late}");
}

#[test]
fn priority_goes_first_and_age_catches_up() {
    let mut queue = Queue::default();
    let bound = u64::from(limits::PRIORITY_MAX) * limits::PRIORITY_STEP_MS;
    queue.insert(tenant(1), class(0), rank(1_000, 0), task(1));
    queue.insert(
        tenant(1),
        class(0),
        rank(1_000 + bound - 1, limits::PRIORITY_MAX),
        task(2),
    );
    queue.insert(
        tenant(1),
        class(0),
        rank(1_000 + bound + 1, limits::PRIORITY_MAX),
        task(3),
    );
    let order: Vec<TaskRef> = drain(&mut queue, 9).into_iter().map(|(task, _)| task).collect();
    assert_eq!(order, [task(2), task(1), task(3)]);
}

#[test]
fn positions_are_those_of_placing() {
    let mut queue = Queue::default();
    queue.weigh(Arc::new(BTreeMap::from([(tenant(2), 2), (tenant(3), 5)])));
    for number in 0..90u64 {
        let levels = u32::try_from(number % 4).unwrap();
        let class = class(u8::try_from(number % 5).unwrap());
        queue.insert(
            tenant(1 + number % 3),
            class,
            rank(number * 7_919, levels),
            task(number),
        );
    }
    drain(&mut queue, 7);
    let said: BTreeMap<TaskRef, u32> = (0..90)
        .filter_map(|number| Some((task(number), queue.position(task(number))?)))
        .collect();
    for (place, (task, _)) in (0u32..).zip(drain(&mut queue, 200)) {
        assert_eq!(said[&task], place);
    }
}

#[test]
fn a_class_that_fits_nowhere_is_passed_over_as_one() {
    let mut queue = Queue::default();
    for number in 0..100_000 {
        queue.insert(tenant(1), class(1), number, task(number));
    }
    queue.insert(tenant(1), class(2), 200_000, task(200_000));
    queue.insert(tenant(2), class(1), 0, task(200_001));
    let mut passed = Passed::default();
    let mut tries = 0;
    let found = loop {
        tries += 1;
        match queue.next(&passed) {
            Some((_, tenant, each)) if each == class(1) => queue.pass_over(&mut passed, tenant, each),
            other => break other.map(|(task, ..)| task),
        }
    };
    assert_eq!((found, tries), (Some(task(200_000)), 2));
    queue.refile(task(5), class(2));
    let mut passed = Passed::default();
    queue.pass_over(&mut passed, tenant(1), class(1));
    queue.pass_over(&mut passed, tenant(2), class(1));
    assert_eq!(queue.next(&passed).map(|(task, ..)| task), Some(task(5)));
    assert_eq!(queue.len(), 100_002);
}
