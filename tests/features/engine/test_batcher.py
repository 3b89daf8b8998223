"""Batches by budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features.encoders.extractor import Prepared
from pipeline.features.engine.batcher import batches


def prepared(cost, bucket=None):
    return Prepared({}, np.zeros(2, np.float32), cost=cost, bucket=bucket)


@given(st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 3)), max_size=60), st.floats(1, 30))
def test_every_clip_once_within_budget_and_bucket(items, budget):
    made = list(batches(((i, prepared(cost, bucket)) for i, (cost, bucket) in enumerate(items)), budget))
    assert sorted(key for batch in made for key, _ in batch) == list(range(len(items)))
    for batch in made:
        assert len({p.bucket for _, p in batch}) == 1
        assert len(batch) == 1 or sum(p.cost for _, p in batch) <= budget * (1 + 1e-9)


def test_like_meets_like():
    costs = [1.0, 9.0] * 20
    made = list(batches(((i, prepared(cost)) for i, cost in enumerate(costs)), 18.0))
    mixed = [batch for batch in made if len({p.cost for _, p in batch}) > 1]
    assert len(mixed) <= 3


@given(st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 3)), max_size=60), st.floats(1, 30), st.data())
def test_going_on_after_some_batches_makes_the_same_batches(items, budget, data):
    work = [(i, prepared(cost, bucket)) for i, (cost, bucket) in enumerate(items)]
    whole = [[key for key, _ in batch] for batch in batches(work, budget)]
    done = data.draw(st.integers(0, len(whole)))
    gone = {key for batch in whole[:done] for key in batch}
    rest = [[key for key, _ in batch] for batch in batches([item for item in work if item[0] not in gone], budget)]
    assert rest == whole[done:]
