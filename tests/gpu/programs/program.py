"""What one program under comparison is."""

from dataclasses import dataclass, field


@dataclass
class Build:
    """How nvcc makes the program. Paths are below the folder that holds its sources."""

    sources: list[str]
    flags: list[str] = field(default_factory=list)
    kernel: str | None = None  # compiled alone, to the file that the program loads
    kernel_to: str = ""
    copy: list[str] = field(default_factory=list)  # what the program reads at run time
    edits: dict[str, tuple[str, str]] = field(default_factory=dict)  # file: (old, new)


@dataclass
class Program:
    name: str
    group: str
    command: list[str]  # "{python}", "{here}" and "{tree}" are filled in
    folder: str = ""  # of the sources, below the tree
    build: Build | None = None
    binary: str = ""  # the program that is run, where another row builds it
    match: str = "size>=2MiB"
    elastic: int = 0  # allocations that the rule must have made elastic at least
    # (lines in which, what, becomes what): what may differ between two runs
    masks: tuple[tuple[str, str, str], ...] = ()
    unordered: bool = False  # its threads or processes print in any order
    env: dict[str, str] = field(default_factory=dict)
    preload_before: str = ""  # another library to preload, in front of ours
    preload_after: str = ""
    files: tuple[str, ...] = ()  # output files, compared like the output
    needs: tuple[str, ...] = ()  # files that must exist, else it is not run
    code: int | None = 0  # what it exits with where it works; None: anything
    alone: bool = False  # it looks at the GPU's free memory, which neighbours change
    limit: int = 60  # seconds for one run
    seconds: int = 3  # what one run takes, about
    why: str = ""
