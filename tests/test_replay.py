import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crlx import Final, Geometric, Replay, Uniform
from crlx.testing import check_rows, chi_square, keys

STEP, FINAL, NEWEST = range(3)


class Story(NamedTuple):
    """What environments go through.

    `lives` has an array `[rows, 4]` for each of them: the environment's number, the episode's, the
    time in it, and which kind of row this is.
    """

    done: np.ndarray  # [inserts, envs]
    capacity: int
    lives: list[np.ndarray]


class Insert(NamedTuple):
    """Arguments of `Replay.insert`, with a leading axis for time. Actions and extras carry the
    number of the row that they belong to."""

    action: jax.Array
    extras: dict
    after: jax.Array
    done: jax.Array
    now: jax.Array


def life(env, done):
    rows, episode, time = [], 0, 0
    for ended in done:
        rows.append((env, episode, time, STEP))
        time += 1
        if ended:
            rows.append((env, episode, time, FINAL))
            episode, time = episode + 1, 0
    return np.asarray([*rows, (env, episode, time, NEWEST)])


def story(done, capacity):
    return Story(done, capacity, [life(env, row) for env, row in enumerate(done.T)])


def random_story(seed, inserts, envs, capacity, share):
    return story(np.random.default_rng(seed).random((inserts, envs)) < share, capacity)


def stories():
    """Memories that have room left, or were overwritten several times; episodes of one step, of a
    few, and without an end."""
    return st.builds(
        random_story,
        st.integers(0, 2**32 - 1),
        st.sampled_from((7, 70)),
        st.integers(1, 4),
        st.sampled_from((3, 4, 13, 30)),
        st.sampled_from((0.0, 0.05, 0.3, 0.7, 1.0)),
    )


def inserts(told):
    """The steps of all environments at once, in order."""
    after, now, number = [], [], []
    for rows, done in zip(told.lives, told.done.T, strict=True):
        at = np.flatnonzero(rows[:, 3] == STEP)
        number.append(at)
        after.append(rows[at + 1, :3])
        now.append(rows[at + 1 + done, :3])
    after, now = (jnp.asarray(np.stack(x, 1), jnp.float32) for x in (after, now))
    number = jnp.asarray(np.stack(number, 1), jnp.int32)
    extras = {"number": number, "deep": (jnp.stack([number, number], 2), None)}
    action = number[:, :, None].astype(jnp.float32)
    return Insert(action, extras, after, jnp.asarray(told.done), now)


def put(replay, x):
    return replay.insert(x.action, x.extras, after=x.after, done=x.done, now=x.now)


def start(told, steps):
    first = jnp.asarray([rows[0, :3] for rows in told.lives], jnp.float32)
    example = jax.tree.map(lambda x: x[0], steps)
    return Replay.start(first, example.action, example.extras, capacity=told.capacity)


@jax.jit
def scanned(replay, steps):
    return jax.lax.scan(lambda replay, x: (put(replay, x), None), replay, steps)[0]


def achieved(observation):
    return observation[:, 1:]


listed = jax.jit(lambda replay: replay.rows(achieved))


def filled(told):
    steps = inserts(told)
    return listed(scanned(start(told, steps), steps))


@jax.jit
def taken(rows, index):
    """Rows and their successors."""
    return rows.take(index), rows.take(index + 1)


def kept(told):
    """For each row number, its environment and its number of all that were ever."""
    found = {}
    for env, rows in enumerate(told.lives):
        oldest = max(len(rows) - told.capacity, 0)
        for number in range(oldest, len(rows)):
            found[env * told.capacity + number - oldest] = (env, number)
    return found


def drawable(told):
    """The kept rows with an action, of the same form."""
    return {i: at for i, at in kept(told).items() if told.lives[at[0]][at[1], 3] == STEP}


def observations(told, places):
    return np.asarray([told.lives[env][number, :3] for env, number in places])


@settings(max_examples=15)
@given(told=stories())
def test_what_is_stored_is_what_was_met(told):
    rows = filled(told)
    expected = drawable(told)
    count = int(rows.count)
    assert rows.listed[:count].tolist() == list(expected)
    here, after = jax.tree.map(lambda x: np.asarray(x)[:count], taken(rows, rows.listed))
    number = np.asarray([number for _, number in expected.values()])
    state = observations(told, expected.values())
    following = observations(told, [(env, number + 1) for env, number in expected.values()])
    assert np.array_equal(here.observation, state)
    assert np.array_equal(here.achieved, state[:, 1:])
    assert np.array_equal(here.action[:, 0], number)
    assert np.array_equal(here.extras["number"], number)
    assert np.array_equal(here.extras["deep"][0], np.stack([number, number], 1))
    # The successor, also the one that ended an episode, and no other environment's.
    assert np.array_equal(after.observation, following)
    assert np.array_equal(following - state, [[0, 0, 1]] * len(state))


@given(told=stories())
def test_last_by_looking_for_it(told):
    """The furthest row that is reached by rows with actions; other rows are their own."""
    rows, places = filled(told), kept(told)
    steps, expected = drawable(told), []
    for index in places:
        while index in steps and index + 1 in steps and steps[index + 1][0] == steps[index][0]:
            index += 1
        expected.append(index)
    assert rows.last(jnp.asarray(list(places))).tolist() == expected
    every = jnp.arange(len(told.lives) * told.capacity)
    assert np.array_equal(rows.last(rows.last(every)), rows.last(every))


@given(told=stories(), key=keys(), hindsight=st.sampled_from((Geometric(0.7), Uniform(), Final())))
def test_goals_come_later_in_the_same_episode(told, key, hindsight):
    rows = filled(told)
    dkey, gkey = jr.split(key)
    index = rows.draw(64, key=dkey)
    goal = hindsight(index, rows.last(index), key=gkey)
    assert set(index.tolist()) | set(goal.tolist()) <= set(drawable(told))
    here, there = taken(rows, index)[0], taken(rows, goal)[0]
    # Contents tell: an overwritten row would be of another time or episode.
    assert np.array_equal(here.observation[:, :2], there.observation[:, :2])
    ahead = there.observation[:, 2] - here.observation[:, 2]
    assert np.array_equal(ahead, goal - index)
    assert np.all((ahead > 0) | (rows.last(index) == index))


@settings(max_examples=10)
@given(told=stories(), key=keys())
def test_contract(told, key):
    check_rows(filled(told), np.asarray(list(drawable(told))), key=key)


@pytest.mark.parametrize("count", (20, 100))
def test_contract_with_many_rows(count, getkey):
    told = random_story(0, count, 4, 60, 0.1)
    check_rows(filled(told), np.asarray(list(drawable(told))), key=getkey())


def test_geometric_goals_have_their_law(getkey):
    """Rows and offsets together, against uniform rows and powers of the discount."""
    told = random_story(1, 100, 3, 20, 0.1)
    rows = filled(told)
    places = {at: index for index, at in drawable(told).items()}
    index = rows.draw(100_000, key=getkey())
    goal = Geometric(0.8)(index, rows.last(index), key=getkey())
    ahead = rows.take(goal).observation[:, 2] - rows.take(index).observation[:, 2]
    counts = np.zeros((60, 20), int)
    np.add.at(counts, (np.asarray(index), np.asarray(ahead, int)), 1)
    exact = np.zeros((60, 20))
    for (env, number), row in places.items():
        n = 0
        while (env, number + n + 1) in places:
            n += 1
        power = np.where(np.arange(n + 1) > 0, 0.8 ** np.arange(n + 1.0), n == 0)
        exact[row, : n + 1] = power / power.sum() / len(places)
    assert np.count_nonzero(exact) > 150
    assert 1e-4 < chi_square(counts.ravel(), exact.ravel()) < 1 - 1e-4
    assert chi_square(counts.ravel(), np.roll(exact, 1, axis=1).ravel()) < 1e-4


@settings(max_examples=10)
@given(told=stories())
def test_a_compiled_scan_equals_single_inserts(told):
    steps = inserts(told)
    replay = start(told, steps)
    compiled = scanned(replay, steps)
    for t in range(len(told.done)):
        replay = put(replay, jax.tree.map(lambda x, t=t: x[t], steps))
    assert eqx.tree_equal(compiled, replay)


def test_every_number_is_stored_once():
    """Beside what was met there is one flag per row, and one integer per environment."""
    told = random_story(0, 1, 4, 30, 0.0)
    replay = start(told, inserts(told))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(replay))
    assert size == 120 * (3 + 1) * 4 + 120 * (1 + 2) * 4 + 120 + 4 * 4


@functools.cache
def large():
    """512 environments with 10,000 rows of the largest task, and one step of them."""
    observation = jax.ShapeDtypeStruct((512, 268), jnp.float32)
    action = jax.ShapeDtypeStruct((512, 17), jnp.float32)
    done = jax.ShapeDtypeStruct((512,), bool)
    replay = jax.eval_shape(functools.partial(Replay.start, capacity=10_000), observation, action)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(replay))
    return replay, Insert(action, None, observation, done, observation), size


def test_drawing_copies_nothing():
    """Of temporary memory, choosing rows needs some integers per row."""
    replay, _, size = large()

    def drawn(replay, key):
        rows = replay.rows(achieved)
        index = rows.draw(512, key=key)
        goal = Geometric()(index, rows.last(index), key=key)
        return rows.take(index), rows.take(index + 1), rows.take(goal)

    used = jax.jit(drawn).lower(replay, jr.key(0)).compile().memory_analysis()
    assert used.argument_size_in_bytes >= size
    assert used.temp_size_in_bytes < 0.04 * size
    assert size + used.temp_size_in_bytes + used.output_size_in_bytes < 6e9


def test_inserting_copies_nothing():
    replay, step, size = large()

    def filled(replay, step):
        return jax.lax.fori_loop(0, 62, lambda _, replay: put(replay, step), replay)

    compiled = jax.jit(filled, donate_argnums=0).lower(replay, step).compile()
    used = compiled.memory_analysis()
    assert used.alias_size_in_bytes >= size
    assert used.temp_size_in_bytes < size / 1000


@pytest.mark.parametrize("capacity", (-1, 0, 2))
def test_small_memories_are_refused(capacity):
    with pytest.raises(ValueError, match=f"keeps 3 rows or more.*got {capacity}"):
        Replay.start(jnp.zeros((4, 3)), jnp.zeros((4, 1)), capacity=capacity)


def test_memories_beyond_32_bits_are_refused():
    def begin(capacity):
        first = jnp.zeros((3, 1)), jnp.zeros((3, 1))
        return jax.eval_shape(lambda: Replay.start(*first, capacity=capacity))

    with pytest.raises(ValueError, match=r"3 environments with 715827883 each.*most 715827882"):
        begin(715_827_883)
    assert begin(715_827_882).final.shape == (2**31 - 2,)
