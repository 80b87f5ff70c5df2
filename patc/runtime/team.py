"""The threads that compiled code divides its layers among: in place of an OpenMP runtime, on the C library alone.

Compiled models and libraries call the same functions, written in LLVM IR: a library contains them; for models that are
loaded, whose machine needs no compiler, `patc.runtime.team_objects` holds them as machine code. They stay out of the
process's symbols: torch brings an OpenMP runtime of its own, and a call such as `omp_get_thread_num` answered by the
other one would give every thread all of the work.

A team is made by the first call and kept. Calls of models for as many threads that come at the same time take turns:
two teams on the same cores would wait for each other at each barrier. Threads wait in a loop for 0.4 ms, then in
the kernel, so that they leave their cores to others between calls. A forked process makes a team of its own.
"""

from __future__ import annotations

import base64
import ctypes
import platform
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from patc.locks import loading
from patc.runtime.linking import LinkedCode
from patc.runtime.object_code import machine_number
from patc.runtime.placement import LINUX_PLACEMENT
from patc.runtime.team_objects import OBJECTS

# What MLIR's OpenMP dialect and `pattern-parallelize` call.
ENTRY_POINTS = (
    *("__kmpc_barrier", "__kmpc_fork_call", "__kmpc_global_thread_num", "__kmpc_push_num_threads"),
    *("omp_get_num_threads", "omp_get_thread_num"),
)
# What the C library has to have.
LIBRARY_FUNCTIONS = (
    *("getpid", "pthread_attr_destroy", "pthread_attr_init", "pthread_attr_setdetachstate"),
    *("pthread_attr_setstacksize", "pthread_create", "pthread_getspecific", "pthread_key_create"),
    *("pthread_setspecific", "sched_getaffinity", "sched_getcpu", "sched_setaffinity", "sched_yield", "syscall"),
)
_STACK_BYTES = 4 << 20  # some C libraries give threads 128 KB
# Number of the system call futex, what tells the core that it waits, and how often that takes about 0.4 ms: that is
# longer than a CPU takes to wake up from idling.
_MACHINES = {
    "x86_64": (202, "call void @llvm.x86.sse2.pause()", 16384),
    "aarch64": (98, "call void @llvm.aarch64.hint(i32 1)", 262144),
}
_WAIT, _WAKE = 128, 129  # of this process alone


def team_functions(threads: int) -> Mapping[str, int]:
    """Return the addresses of `ENTRY_POINTS` of this process's team of so many threads; it is made when first used.

    Raises:
        PatcError: the C library lacks a function, or the system grants no memory for code.
    """
    with loading():
        if threads not in _teams:
            code = zlib.decompress(base64.b85decode(OBJECTS[machine_number(platform.machine())]))
            team = LinkedCode(code, {})
            # The threads run it when the interpreter, on its way out, drops what modules have.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(team))
            # Code may ask for fewer threads than its model was compiled for; others may not.
            ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)(
                team.address_of("__kmpc_push_num_threads")
            )(None, 0, threads)
            _teams[threads] = team
        return MappingProxyType({name: _teams[threads].address_of(name) for name in ENTRY_POINTS})


# By the number of threads: their code lives as long as the process, as they do.
_teams: dict[int, LinkedCode] = {}


def team_text(architecture: str) -> str:
    """Return the module of LLVM IR that defines `ENTRY_POINTS` on Linux.

    Args:
        architecture: "x86_64" or "aarch64".
    """
    futex, pause, turns = _MACHINES[architecture]
    waiting = _WAITING.format(futex=futex, pause=pause, turns=turns, wait=_WAIT, wake=_WAKE)
    return waiting + _REGION + _MAKING.format(stack=_STACK_BYTES) + LINUX_PLACEMENT


# A word that threads wait for: its value, how many sleep until it changes, and the CPU of the one that woke them last.
_WAITING = """\
%word = type {{ i32, i32, i32, [13 x i32] }}
@lock = internal global %word zeroinitializer, align 64
@start = internal global %word zeroinitializer, align 64
@phase = internal global %word zeroinitializer, align 64
@arrived = internal global i32 0, align 64
@size = internal global i32 0, align 64
@process = internal global i32 0, align 4
@function = internal global ptr null, align 8
@arguments = internal global ptr null, align 8
@wanted = internal global i32 0, align 4
@number = internal global i32 0, align 4
@numbered = internal global i32 0, align 4
@zero = internal constant i32 0, align 4

declare i64 @syscall(i64, ...)
declare i32 @getpid()
declare i32 @sched_yield()
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_setdetachstate(ptr, i32)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_key_create(ptr, ptr)
declare i32 @pthread_setspecific(i32, ptr)
declare ptr @pthread_getspecific(i32)

; Returns when the word is not `old` any more.
define internal void @wait(ptr %word, i32 %old) noinline {{
entry:
  br label %turn
turn:
  %i = phi i32 [ 0, %entry ], [ %i.next, %again ]
  %value = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %value, %old
  br i1 %same, label %again, label %done
again:
  {pause}
  %i.next = add i32 %i, 1
  %tired = icmp eq i32 %i.next, {turns}
  br i1 %tired, label %sleep, label %turn
sleep:
  %sleepers = getelementptr i32, ptr %word, i64 1
  %more = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {wait}, i32 %old, ptr null)
  %less = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  %now = load atomic i32, ptr %word acquire, align 4
  %still = icmp eq i32 %now, %old
  br i1 %still, label %sleep, label %awake
awake:
  %woken = icmp eq i64 %slept, 0
  br i1 %woken, label %leave, label %done
leave:
  %place = getelementptr i32, ptr %word, i64 2
  %cpu = load atomic i32, ptr %place monotonic, align 4
  call void @leave_cpu(i32 %cpu)
  br label %done
done:
  ret void
}}

; Changes a word and wakes those that sleep until then: those that the kernel puts behind this thread run now, and move.
define internal void @set(ptr %word, i32 %value) {{
  store atomic i32 %value, ptr %word seq_cst, align 4
  %place = getelementptr i32, ptr %word, i64 1
  %sleepers = load atomic i32, ptr %place seq_cst, align 4
  %none = icmp eq i32 %sleepers, 0
  br i1 %none, label %done, label %rouse
rouse:
  %cpu = call i32 @sched_getcpu()
  %waker = getelementptr i32, ptr %word, i64 2
  store atomic i32 %cpu, ptr %waker monotonic, align 4
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {wake}, i32 2147483647)
  %yielded = call i32 @sched_yield()
  br label %done
done:
  ret void
}}
"""

_REGION = """
define i32 @__kmpc_global_thread_num(ptr %place) {
  ret i32 0
}

define void @__kmpc_push_num_threads(ptr %place, i32 %thread, i32 %threads) {
  %before = atomicrmw umax ptr @wanted, i32 %threads monotonic
  ret void
}

; The caller of a region has stored nothing under the key.
define i32 @omp_get_thread_num() {
  %have = load i32, ptr @numbered
  %has_key = icmp ne i32 %have, 0
  br i1 %has_key, label %look, label %alone
look:
  %key = load i32, ptr @number
  %given = call ptr @pthread_getspecific(i32 %key)
  %bits = ptrtoint ptr %given to i64
  %own = trunc i64 %bits to i32
  ret i32 %own
alone:
  ret i32 0
}

define i32 @omp_get_num_threads() {
  %size = load i32, ptr @size
  ret i32 %size
}

define void @__kmpc_barrier(ptr %place, i32 %thread) {
  %own = load atomic i32, ptr @phase monotonic, align 4
  %before = atomicrmw add ptr @arrived, i32 1 acq_rel
  %count = add i32 %before, 1
  %size = load i32, ptr @size
  %last = icmp eq i32 %count, %size
  br i1 %last, label %release, label %stay
release:
  store atomic i32 0, ptr @arrived monotonic, align 4
  %next = add i32 %own, 1
  call void @set(ptr @phase, i32 %next)
  ret void
stay:
  call void @wait(ptr @phase, i32 %own)
  ret void
}

define void @__kmpc_fork_call(ptr %place, i32 %count, ptr %function, ptr %arguments) {
entry:
  call void @own_process()
  br label %try
try:
  %pair = cmpxchg ptr @lock, i32 0, i32 1 acquire monotonic
  %taken = extractvalue { i32, i1 } %pair, 1
  br i1 %taken, label %fork, label %turn
turn:
  call void @wait(ptr @lock, i32 1)
  br label %try
fork:
  call void @make_team()
  store ptr %function, ptr @function
  store ptr %arguments, ptr @arguments
  %old = load atomic i32, ptr @start monotonic, align 4
  %new = add i32 %old, 1
  call void @set(ptr @start, i32 %new)
  call void %function(ptr @zero, ptr @zero, ptr %arguments)
  call void @__kmpc_barrier(ptr null, i32 0)
  call void @set(ptr @lock, i32 0)
  ret void
}
"""

_MAKING = """
define internal ptr @work(ptr %given) {{
entry:
  %key = load i32, ptr @number
  %kept = call i32 @pthread_setspecific(i32 %key, ptr %given)
  br label %next
next:
  %seen = phi i32 [ 0, %entry ], [ %found, %next ]
  call void @wait(ptr @start, i32 %seen)
  %found = load atomic i32, ptr @start acquire, align 4
  %function = load ptr, ptr @function
  %arguments = load ptr, ptr @arguments
  call void %function(ptr @zero, ptr @zero, ptr %arguments)
  call void @__kmpc_barrier(ptr null, i32 0)
  br label %next
}}

; Starts the threads unless they are there, or as many as there may be. A key under which each keeps its number stays
; through forks; without one the caller is alone.
define internal void @make_team() {{
entry:
  %size = load i32, ptr @size
  %missing = icmp eq i32 %size, 0
  br i1 %missing, label %make, label %done
make:
  store i32 1, ptr @size
  %have = load i32, ptr @numbered
  %has_key = icmp ne i32 %have, 0
  br i1 %has_key, label %prepare, label %make_key
make_key:
  %refused = call i32 @pthread_key_create(ptr @number, ptr null)
  %granted = icmp eq i32 %refused, 0
  br i1 %granted, label %keep_key, label %done
keep_key:
  store i32 1, ptr @numbered
  br label %prepare
prepare:
  %threads = load atomic i32, ptr @wanted monotonic, align 4
  %attributes = alloca [128 x i8], align 16
  %thread = alloca i64, align 8
  %a = call i32 @pthread_attr_init(ptr %attributes)
  %b = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 {stack})
  %c = call i32 @pthread_attr_setdetachstate(ptr %attributes, i32 1)
  br label %another
another:
  %count = phi i32 [ 1, %prepare ], [ %more, %made ]
  store i32 %count, ptr @size
  %full = icmp sge i32 %count, %threads
  br i1 %full, label %made_all, label %start_one
start_one:
  %wide = zext i32 %count to i64
  %given = inttoptr i64 %wide to ptr
  %failed = call i32 @pthread_create(ptr %thread, ptr %attributes, ptr @work, ptr %given)
  %good = icmp eq i32 %failed, 0
  br i1 %good, label %made, label %made_all
made:
  %more = add i32 %count, 1
  br label %another
made_all:
  %d = call i32 @pthread_attr_destroy(ptr %attributes)
  br label %done
done:
  ret void
}}

; Forgets the team of the process that this one was forked from. Who does says so by its own number, negated: a fork
; that comes meanwhile finds another process's, and does not wait for a thread that it does not have.
define internal void @own_process() {{
entry:
  %own = call i32 @getpid()
  %claim = sub i32 0, %own
  br label %look
look:
  %known = load atomic i32, ptr @process acquire, align 4
  %same = icmp eq i32 %known, %own
  br i1 %same, label %done, label %other
other:
  %busy = icmp eq i32 %known, %claim
  br i1 %busy, label %look, label %take
take:
  %pair = cmpxchg ptr @process, i32 %known, i32 %claim acquire monotonic
  %mine = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %mine, label %forget, label %look
forget:
  store %word zeroinitializer, ptr @lock
  store %word zeroinitializer, ptr @start
  store %word zeroinitializer, ptr @phase
  store i32 0, ptr @arrived
  store i32 0, ptr @size
  store atomic i32 %own, ptr @process release, align 4
  br label %done
done:
  ret void
}}
"""
