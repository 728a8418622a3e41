"""What the adapter relies on in one release of vLLM, and what becomes of a release that is different."""
import ast
import importlib
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import checks  # noqa: E402
import worlds  # noqa: E402

adapter, seams = worlds.adapter, worlds.package.seams
SEAMS = adapter.SEAMS

# Who moves blocks but BlockPool itself, and why that is sound.
MOVERS = {
    ("v1/core/single_type_kv_cache_manager.py", "SinkFullAttentionManager"): "once, for good",
    # One more reference to a block in use, given back through the pool.
    ("v1/core/single_type_kv_cache_manager.py", "SingleTypeKVCacheManager"): "a reference",
    ("v1/core/single_type_kv_cache_manager.py", "FullAttentionManager"): "a reference",
    ("v1/core/single_type_kv_cache_manager.py", "MambaManager"): "a reference",
    ("v1/simple_kv_offload/manager.py", "SimpleCPUOffloadScheduler"): "a KV connector: not served",
    ("v1/hisparse/coordinator.py", "HiSparseCoordinator"): "blocks on the host: not served",
}
# Methods of BlockPool that move blocks, all of them by its free queue.
MOVING = {"__init__", "get_new_blocks", "touch", "free_blocks", "get_num_free_blocks",
          "unpin_blocks"}
# Who changes what the prefix cache knows of a block, and of which blocks. The free queue is told
# when they are free.
KNOWERS = {
    ("v1/core/block_pool.py", "BlockPool"): "see below",
    ("v1/core/kv_cache_utils.py", "KVCacheBlock"): "itself",
    ("v1/core/single_type_kv_cache_manager.py", "MambaManager"): "in use",
    ("v1/simple_kv_offload/manager.py", "SimpleCPUOffloadScheduler"): "a KV connector: not served",
}
KNOWING = {
    "cache_full_blocks": "in use", "cache_partial_block": "in use", "move_block_hashes": "in use",
    "_insert_block_hash": "of those", "_remove_cached_block_hashes": "of those",
    "get_new_blocks": "just taken", "_maybe_evict_cached_block": "of those",
    "evict_blocks": "any: told", "reset_prefix_cache": "all: told",
}
CHANGES = {"_maybe_evict_cached_block", "_remove_cached_block_hashes", "_insert_block_hash",
           "reset_hash", "set_block_hash", "move_block_hashes"}


def moves(node):
    """Whether a piece of source may move a block between use and the free queue."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.target, ast.Attribute) and node.target.attr == "ref_cnt"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "unpin_blocks"
    return isinstance(node, ast.Attribute) and node.attr == "free_block_queue"


def knows(node):
    """Whether a piece of source may change the hash of a block."""
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Attribute) and t.attr in ("block_hash", "_block_hash")
                   for t in node.targets)
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and
            node.func.attr in CHANGES)


class Paths(unittest.TestCase):
    def owners(self):
        """(file, name, tree) of every class of vLLM's engine."""
        root = pathlib.Path(worlds.SITE) / "vllm"
        for file in sorted(root.glob("v1/**/*.py")):
            text, name = file.read_text(), file.relative_to(root).as_posix()
            if name.startswith("v1/kv_offload/"):  # counts blocks of the host
                continue
            if any(word in text for word in ("block_hash", "free_block_queue", "ref_cnt",
                                             "create_request_queue")):
                for owner in ast.parse(text).body:
                    if isinstance(owner, ast.ClassDef):
                        yield name, owner.name, owner

    def classes(self, asks):
        return {(file, name) for file, name, owner in self.owners()
                if any(map(asks, ast.walk(owner)))}

    def methods(self, asks):
        pool, = (owner for file, name, owner in self.owners()
                 if (file, name) == ("v1/core/block_pool.py", "BlockPool"))
        return {method.name for method in pool.body if isinstance(method, ast.FunctionDef) and
                any(map(asks, ast.walk(method)))}

    def test_who_moves_blocks(self):
        self.assertLessEqual(self.classes(moves) - {("v1/core/block_pool.py", "BlockPool")},
                             set(MOVERS))
        self.assertLessEqual(self.methods(moves) - {"is_block_writable"}, MOVING)
        self.assertLessEqual({"get_new_blocks", "touch", "free_blocks"}, self.methods(moves))

    def test_who_changes_what_is_known_of_a_block(self):
        self.assertLessEqual(self.classes(knows), set(KNOWERS))
        self.assertLessEqual(self.methods(knows), set(KNOWING))
        self.assertLessEqual({"cache_full_blocks", "evict_blocks"}, self.methods(knows))


    def test_where_requests_wait(self):
        scheduler, = (owner for file, name, owner in self.owners()
                      if (file, name) == ("v1/core/sched/scheduler.py", "Scheduler"))
        queues = {node.targets[0].attr for node in ast.walk(scheduler)
                  if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute) and
                  isinstance(node.value, ast.Call) and
                  getattr(node.value.func, "id", "") == "create_request_queue"}
        self.assertIn("waiting", queues)
        self.assertLessEqual(queues, set(worlds.package.vllm_cache.WAITING))


class Known(unittest.TestCase):
    def test_all_seams_are_known(self):
        self.assertEqual(SEAMS.unknown(adapter.REQUIRED + adapter.RUNNERS + adapter.FRONT_ENDS), "")

    def test_a_name_imported_before_the_adapter_came(self):
        utils, attn_utils = (importlib.import_module("vllm.v1.worker." + name)
                             for name in ("utils", "gpu.attn_utils"))
        wrapped = [("vllm.v1.worker.gpu.model_runner", attn_utils.init_kv_cache)]
        if checks.ONE_ALLOCATION:
            wrapped = [(name, utils.allocate_kv_cache) for name in adapter.RUNNERS[1:]]
        for name, function in wrapped:
            module = sys.modules[name]
            self.assertIs(getattr(module, function.__name__), function)
            with mock.patch.object(module, function.__name__, function.__wrapped__):
                SEAMS._install(SEAMS._installers[name], module)
                self.assertIs(getattr(module, function.__name__), function)


class Different(checks.Checks):
    """A release that the adapter does not recognise runs as stock, and it says why."""

    def check_stock(self, why):
        library = worlds.Library()
        engine = worlds.Engine(library)
        self.assertEqual(library.states, ["stock: " + why])
        self.assertEqual((library.elastic, engine.balloon), ({}, None))
        self.run_some(engine)

    def installed_on(self, name, change):
        """The state of the seams after the module `name` came in another form."""
        module = sys.modules[name]
        unwrapped = {}
        for owner in (module, *vars(module).values()):
            for key, value in list(vars(owner).items()) if hasattr(owner, "__dict__") else ():
                if getattr(value, "__globals__", {}).get("__name__") == adapter.__name__:
                    unwrapped.setdefault(id(owner), (owner, {}))[1][key] = value
        for owner, wrapped in unwrapped.values():
            for key, value in wrapped.items():
                setattr(owner, key, value.__wrapped__)
                self.addCleanup(setattr, owner, key, value)
        for owner, key, value in change(module):
            if hasattr(owner, key):
                self.addCleanup(setattr, owner, key, getattr(owner, key))
            else:
                self.addCleanup(delattr, owner, key)
            if value is None:
                delattr(owner, key)
            else:
                setattr(owner, key, value)
        patched = mock.patch.dict(SEAMS._unknown)
        patched.start()
        self.addCleanup(patched.stop)
        before = {(id(owner), key): vars(owner)[key] for owner, wrapped in unwrapped.values()
                  for key in wrapped if key in vars(owner)}
        SEAMS._install(SEAMS._installers[name], module)
        after = {(id(owner), key): vars(owner)[key] for owner, wrapped in unwrapped.values()
                 for key in wrapped if key in vars(owner)}
        self.assertEqual(before, after, "half installed")

    def test_a_method_with_other_parameters(self):
        def evict_blocks(self, blocks):
            raise AssertionError("nobody calls it here")
        self.installed_on("vllm.v1.core.block_pool", lambda module: [
            (module.BlockPool, "evict_blocks", evict_blocks), (module.BlockPool, "_kvcached", None)])
        self.check_stock("block_pool: BlockPool.evict_blocks(self, blocks)")

    def test_a_free_queue_with_more_to_it(self):
        self.installed_on("vllm.v1.core.block_pool", lambda module: [
            (module.FreeKVCacheBlockQueue, "swap", lambda self, a, b: None),
            (module.BlockPool, "_kvcached", None)])
        self.check_stock("block_pool: the free queue ['swap']")

    def test_a_method_that_is_gone(self):
        self.installed_on("vllm.v1.engine.core",
                          lambda module: [(module.EngineCore, "post_step", None)])
        self.assertEqual(SEAMS.unknown(adapter.REQUIRED), "core: no EngineCore.post_step")

    def test_an_engine_with_an_unknown_seam(self):
        with mock.patch.dict(SEAMS._unknown, {"vllm.v1.core.block_pool": "no BlockPool.touch"}):
            self.check_stock("block_pool: no BlockPool.touch")

    def test_a_runner_that_allocates_in_another_way(self):
        name = "vllm.v1.worker.gpu.attn_utils"
        if checks.ONE_ALLOCATION:
            name = "vllm.v1.worker.utils"
            self.installed_on(name, lambda module: [
                (module, "allocate_kv_cache", lambda config, *rest, real=(
                    module.allocate_kv_cache): real(config, *rest))])
            for user in ("vllm.v1.worker.gpu.attn_utils", "vllm.v1.worker.gpu_model_runner"):
                self.addCleanup(setattr, sys.modules[user], "allocate_kv_cache",
                                sys.modules[user].allocate_kv_cache)
                sys.modules[user].allocate_kv_cache = sys.modules[name].allocate_kv_cache
            self.check_stock("utils: utils.allocate_kv_cache" + str(
                seams.inspect.signature(sys.modules[name].allocate_kv_cache)))
        else:
            self.installed_on(name, lambda module: [
                (module, "_allocate_kv_cache", lambda *rest, real=(
                    module._allocate_kv_cache): real(*rest))])
            self.check_stock("attn_utils: attn_utils._allocate_kv_cache" + str(
                seams.inspect.signature(sys.modules[name]._allocate_kv_cache)))


if __name__ == "__main__":
    unittest.main()
