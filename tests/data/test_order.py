import pytest

from animate4d.data.order import DRAW_STREAM, Cursor, ItemOrder


def items_of_epoch(order: ItemOrder, epoch: int) -> list[tuple[int, int]]:
    found = [order.item(Cursor(epoch, position)) for position in range(order.epoch_items)]
    return [(item.sample, item.group) for item in found]


def test_every_item_comes_once_per_epoch_in_an_order_that_changes():
    order = ItemOrder(samples=7, groups=4, seed=3)
    first, second = items_of_epoch(order, 0), items_of_epoch(order, 1)
    assert sorted(first) == sorted(second) == [(sample, group) for sample in range(7) for group in range(4)]
    assert first != second
    assert first == items_of_epoch(ItemOrder(7, 4, seed=3), 0)
    assert first != items_of_epoch(ItemOrder(7, 4, seed=4), 0)


def test_one_group_per_visit_shows_each_sample_once_and_all_groups_in_time():
    order = ItemOrder(samples=20, groups=4, seed=0, one_group=True)
    epochs = [items_of_epoch(order, epoch) for epoch in range(6)]
    assert all(sorted(sample for sample, _ in epoch) == list(range(20)) for epoch in epochs)
    assert {group for epoch in epochs for _, group in epoch} == {0, 1, 2, 3}
    assert epochs[2] == items_of_epoch(order, 2)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_sequence_and_step_across_the_epoch_end(world):
    order, batch = ItemOrder(samples=5, groups=1, seed=0), 2
    seen, cursors = [], [Cursor()] * world
    for _ in range(10):
        for rank in range(world):
            items, cursors[rank] = order.step(cursors[rank], batch, rank, world)
            assert len(items) == batch
            seen += items
        assert len(set(cursors)) == 1
    whole = [order.item(order.advance(Cursor(), number)) for number in range(10 * batch * world)]
    assert seen == whole
    assert [item.cursor for item in whole[4:6]] == [Cursor(0, 4), Cursor(1, 0)]


def test_a_cursor_can_be_taken_up_by_another_number_of_ranks():
    order = ItemOrder(samples=6, groups=2, seed=1)
    _, cursor = order.step(Cursor(), 2, 0, 2)
    after, _ = order.step(cursor, 4, 0, 1)
    assert after == [order.item(Cursor(0, position)) for position in range(4, 8)]


def test_draws_depend_on_the_place_and_the_purpose_only():
    order = ItemOrder(samples=6, groups=2, seed=1)
    here, there = Cursor(2, 3), Cursor(3, 2)
    assert order.random(DRAW_STREAM, here).random() == order.random(DRAW_STREAM, here).random()
    assert order.random(DRAW_STREAM, here).random() != order.random(DRAW_STREAM, there).random()
    item = order.item(here)
    replacements = [order.replacement(item, attempt) for attempt in range(1, 6)]
    assert len({(other.sample, other.group) for other in replacements}) > 1
    assert all(other.cursor == here for other in replacements)
    assert replacements[0] == order.replacement(item, 1)
