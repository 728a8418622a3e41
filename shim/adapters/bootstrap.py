# Runs once in every Python process, as a pending call: perhaps in the middle of somebody's import,
# so it touches `sys` and nothing else. The adapters are loaded when the engine they know is found.
#
# Given by python.cpp: SOURCES, the text of each adapter module by name, and the types FreeBlocks,
# Demand and Glance.
import sys

# The top package of an engine, and the adapter that knows it.
ENGINES = {"vllm": "vllm"}


class Finder:
    """Lets every import pass, and runs a hook right after a watched module was executed."""

    def __init__(self, sources):
        self.sources = sources
        self.hooks = {}  # module name -> function(module), which never raises
        self.engines = dict(ENGINES)
        # Engines that were there before us: their modules are hooked at the next import.
        self.late = [name for name in ENGINES if name in sys.modules]

    def find_spec(self, name, path=None, target=None):
        if self.late:
            self.hook_late()
        if name in self.engines:
            self.start(name)
        hook = self.hooks.get(name)
        if hook is None:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                return after_exec(spec, hook)
        return None

    def start(self, engine):
        """Loads an engine's adapter, which names the modules it wants to see."""
        adapter = self.engines.pop(engine)
        try:
            self.hooks.update(getattr(sys.modules["_kvcached"], adapter).hooks())
        except Exception as error:  # an adapter must not break its engine
            sys.stderr.write("kvcached: no adapter for %s: %r\n" % (engine, error))

    def hook_late(self):
        for engine in self.late:
            if engine in self.engines:
                self.start(engine)
        waiting = []
        for name in list(self.hooks):
            module = sys.modules.get(name)
            if module is None:
                continue
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                waiting.append(name)
            else:
                self.hooks.pop(name)(module)
        if not waiting:
            self.late = []


def after_exec(spec, hook):
    loader = spec.loader
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return spec

    def exec_module(module):
        execute(module)
        hook(module)

    try:
        loader.exec_module = exec_module
    except AttributeError:
        pass  # a loader that cannot be wrapped: the adapter misses its seam and says so
    return spec


def load(name):
    """`from _kvcached import name`: makes the module from its embedded source."""
    if name not in SOURCES:
        raise AttributeError(name)
    full = "_kvcached." + name
    module = type(sys)(full)
    module.__file__ = "<kvcached>/%s.py" % name
    sys.modules[full] = module
    exec(compile(SOURCES[name], module.__file__, "exec"), module.__dict__)
    setattr(sys.modules["_kvcached"], name, module)
    return module


if "_kvcached" not in sys.modules:
    package = type(sys)("_kvcached")
    package.__getattr__ = load
    package.FreeBlocks = FreeBlocks
    package.Demand = Demand
    package.Glance = Glance
    package.__path__ = []
    package.finder = Finder(SOURCES)
    sys.modules["_kvcached"] = package
    sys.meta_path.insert(0, package.finder)
