"""What one process of a distributed training does, on TensorFlow's own engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsys_lib.models import build_rating_model
from recsys_lib.training import loop
from recsys_lib.training.checkpoint import TrainingState, save_checkpoint
from recsys_lib.training.checks import own_optimizer
from recsys_lib.training.forward import embedding_tables, make_forward
from recsys_lib.training.history import History
from recsys_lib.training.launch import sign_of_life
from recsys_lib.training.sampling import epoch_order, uniform_negatives

if TYPE_CHECKING:
    from recsys_lib.training.distributed import Job

_PARTS_PER_SERVER = 8  # a table starts part by part, so that no server needs room for it twice


def _train(job: Job, engine: _Engine) -> bool:
    """Make all updates that are left; tell whether this member has written the last backup."""
    data, options, facts = job.interactions, job.options, job.facts()
    course, first = History(), 0
    if job.backup.exists():
        state = job.state()
        course, first = state.history, int(state.optimizer[0])
        engine.restore(state)
    losses, seconds = list(course.loss), list(course.seconds)
    ratings = np.zeros(len(data)) if data.ratings is None else data.ratings
    columns = data.user_ids.astype("i4"), data.item_ids.astype("i4"), ratings.astype("f4")
    in_epoch = -(-len(data) // options.batch_size)
    last = options.epochs * in_epoch
    under_way: list[tuple[Any, int]] = []
    for step in range(first, last):
        epoch, place = divmod(step, in_epoch)
        if place == 0 or step == first:
            order, started = epoch_order(len(data), options.seed, epoch), time.perf_counter()
        if place == 0:
            losses, seconds = [*losses, 0.0], [*seconds, 0.0]
        rows = order[place * options.batch_size : (place + 1) * options.batch_size]
        under_way.append((engine.update(*(x[rows] for x in columns), step), len(rows)))
        sign_of_life()
        done = step + 1
        if done % options.backup_every and done % in_epoch:
            continue
        losses[-1] += sum(engine.settle(loss) * rows for loss, rows in under_way) / len(data)
        seconds[-1] += time.perf_counter() - started
        under_way.clear()
        if not np.isfinite(losses[-1]):
            raise ValueError(f"the loss is {losses[-1]}: expected a smaller learning_rate")
        if engine.saves and (done % options.backup_every == 0 or done == last):
            course = History(tuple(losses), (), tuple(seconds))
            state = TrainingState(*engine.capture(done, done == last), [], course)
            save_checkpoint(job.backup, facts, state)
        started = time.perf_counter()
    return engine.saves


class _Engine(NamedTuple):
    update: Callable[..., Any]  # (users, items, ratings, step) -> the loss, or a promise of it
    settle: Callable[[Any], float]  # the loss that was promised
    capture: Callable[[int, bool], tuple[list[Any], list[Any]]]  # (step, at end): model, optimizer
    restore: Callable[[TrainingState], None]
    saves: bool


def _data_parallel(job: Job, rank: int, workers: int, add_up: Callable[[Any], Any]) -> _Engine:
    """Build one worker; ``add_up`` sums a vector over all workers, and each gets the sum."""
    import tensorflow as tf

    options, model = job.options, build_rating_model(job.config)
    variables, forward = model.trainable_variables, make_forward(model)
    optimizer = own_optimizer(options.optimizer)
    optimizer.learning_rate = options.learning_rate
    optimizer.build(variables)
    tables = embedding_tables(model) if options.l2 else []
    shapes = [v.shape for v in variables]

    def update(users: Any, items: Any, ratings: Any, step: Any) -> Any:
        whole = tf.cast(tf.shape(users)[0], tf.float32)  # rows of all workers
        candidates = _with_negatives(job, items, step)
        users, candidates, ratings = (x[rank::workers] for x in (users, candidates, ratings))
        with tf.GradientTape() as tape:
            losses = loop.row_losses(options.objective, forward(users, candidates), ratings)
            loss = tf.reduce_sum(losses) / whole
        gradients = tape.gradient(loss, variables)
        for n, shape in enumerate(shapes):  # dense, so that all workers' have one length
            gradients[n] = loop.combine_repeated_rows(gradients[n], (*shape, 1)[0], np.inf)
        pairs = tf.repeat(users, candidates.shape[1]), tf.reshape(candidates, [-1])
        for n, side in tables:
            ids, strength = pairs[side == "items"], options.l2 / whole
            gradients[n] = loop.add_shrinkage(gradients[n], variables[n], ids, strength)
        own = tf.concat([*(tf.reshape(g, [-1]) for g in gradients), loss[None]], axis=0)
        *parts, loss = tf.split(add_up(own), [*map(math.prod, shapes), 1])
        summed = [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        optimizer.apply_gradients(zip(summed, variables, strict=True))
        return loss[0]

    def restore(state: TrainingState) -> None:
        for group, saved in ((model, state.model), (optimizer, state.optimizer)):
            for variable, value in zip(group.variables, saved, strict=True):
                variable.assign(value)

    def capture(step: int, at_end: bool) -> Any:
        return [[np.asarray(v) for v in group.variables] for group in (model, optimizer)]

    return _Engine(_compiled(update), float, capture, restore, saves=rank == 0)


def _on_servers(job: Job, resolver: Any) -> _Engine:
    """Build the coordinator of workers, and of servers on which the tables lie in parts."""
    import tensorflow as tf

    options, config = job.options, job.config
    num_parts = _PARTS_PER_SERVER * resolver.cluster_spec().num_tasks("ps")
    partitioner = tf.distribute.experimental.partitioners.FixedShardsPartitioner(num_parts)
    strategy = tf.distribute.ParameterServerStrategy(resolver, partitioner)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    def table(side: int, rows: int) -> Any:
        def start(partition_shape: Any, partition_offset: Any) -> Any:
            stream = [2 * config.seed + side, partition_offset[0]]
            return tf.random.stateless_normal(partition_shape, stream, stddev=config.init_std)

        return tf.Variable(start, shape=[rows, config.embedding_dim], dtype=tf.float32)

    with strategy.scope():
        tables = [table(0, config.num_users), table(1, config.num_items)]
    parts = [part for table in tables for part in table.variables]

    def update(users: Any, items: Any, ratings: Any, step: Any) -> Any:
        candidates = _with_negatives(job, items, step)
        with tf.GradientTape() as tape:
            of_users = tf.nn.embedding_lookup(tables[0], users)  # (b, d): only these rows travel
            of_items = tf.nn.embedding_lookup(tables[1], candidates)  # (b, 1 + m, d)
            logits = tf.linalg.matvec(of_items, of_users)
            loss = tf.reduce_mean(loop.row_losses(options.objective, logits, ratings))
            squares = tf.reduce_sum(of_users**2, 1) * candidates.shape[1]
            squares += tf.reduce_sum(of_items**2, [1, 2])
            total = loss + options.l2 / 2 * tf.reduce_mean(squares)
        for part, gradient in zip(parts, tape.gradient(total, parts), strict=True):
            change = options.learning_rate * gradient.values
            part.scatter_sub(tf.IndexedSlices(change, gradient.indices))
        return loss

    # Compiled, since otherwise whole parts would travel.
    lookup = [tf.function(partial(tf.nn.embedding_lookup, table)) for table in tables]
    files, update = tf.train.Checkpoint(users=tables[0], items=tables[1]), _compiled(update)

    def capture(step: int, at_end: bool) -> Any:
        kept = [step, *(int(job.state().optimizer[0]) for _ in [0] if job.backup.exists())]
        files.write(f"{job.backup}-{step}")
        for path in job.backup.parent.glob(f"{job.backup.name}-*.*"):
            if path.stem not in {f"{job.backup.name}-{n}" for n in kept}:
                path.unlink()
        used = job.interactions.user_ids, job.interactions.item_ids
        rows = [lookup[n](np.unique(ids)).numpy() for n, ids in enumerate(used) if at_end]
        return rows, [np.int64(step)]

    def restore(state: TrainingState) -> None:
        files.read(f"{job.backup}-{int(state.optimizer[0])}").assert_consumed()

    def schedule(*batch: Any) -> Any:
        return coordinator.schedule(update, batch)

    return _Engine(schedule, lambda promise: float(promise.fetch()), capture, restore, saves=True)


def _compiled(update: Callable[..., Any]) -> Any:
    import tensorflow as tf

    ids, ratings = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)
    signature = [ids, ids, ratings, tf.TensorSpec([], tf.int64)]
    return tf.function(update, autograph=False, input_signature=signature)


def _with_negatives(job: Job, items: Any, step: Any) -> Any:
    """Return (b, 1 + m) item ids: each row's own, then those drawn for it."""
    import tensorflow as tf

    drawn = loop.num_drawn(job.options.objective, job.options.negatives_per_positive)
    size, num_items = tf.shape(items)[0], job.config.num_items
    negatives = uniform_negatives(size, drawn, num_items, job.options.seed, step)
    return tf.concat([items[:, None], negatives], axis=1)


def be_member(job: Job) -> bool:
    """Run the part of a job that TF_CONFIG gives to this process; see :func:`_train`."""
    import tensorflow as tf
    from tensorflow import distribute

    sign_of_life()
    resolver = distribute.cluster_resolver.TFConfigClusterResolver()
    cluster, own = resolver.cluster_spec(), (resolver.task_type, resolver.task_id)
    if "ps" in cluster.jobs:
        if own[0] != "chief":
            distribute.Server(cluster, *own, protocol="grpc").join()  # until it is ended
        return _train(job, _on_servers(job, resolver))
    strategy = distribute.MultiWorkerMirroredStrategy(resolver)
    members = [(job, n) for job in sorted(cluster.jobs) for n in cluster.task_indices(job)]

    def add_up(vector: Any) -> Any:
        here = distribute.get_replica_context
        return strategy.run(lambda: here().all_reduce("SUM", tf.identity(vector)))

    return _train(job, _data_parallel(job, members.index(own), len(members), add_up))
