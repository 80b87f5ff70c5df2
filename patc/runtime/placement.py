"""Where the threads of a team run: not on the CPU of the one that woke them.

A virtual machine's idle CPUs look busy to the kernel, which then wakes a sleeping thread on the CPU of its waker. There
the two take turns until the kernel balances the load, which takes milliseconds: longer than many a net. So a thread
that finds itself there moves away; it stays bound to no CPU.
"""

from __future__ import annotations

_MASK_BYTES = 128  # of as many CPUs as the C library's type has
LINUX_PLACEMENT = f"""
declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)

; Lets the calling thread leave a CPU, if it is there and there are others that it may run on.
define internal void @leave_cpu(i32 %cpu) noinline {{
  %own = call i32 @sched_getcpu()
  %together = icmp eq i32 %own, %cpu
  %counted = icmp ult i32 %cpu, {8 * _MASK_BYTES}
  %moves = and i1 %together, %counted
  br i1 %moves, label %find, label %done
find:
  %mask = alloca [{_MASK_BYTES} x i8], align 8
  %failed = call i32 @sched_getaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  %found = icmp eq i32 %failed, 0
  br i1 %found, label %move, label %done
move:
  %place = lshr i32 %cpu, 3
  %byte = getelementptr i8, ptr %mask, i32 %place
  %number = and i32 %cpu, 7
  %short = trunc i32 %number to i8
  %bit = shl i8 1, %short
  %others = xor i8 %bit, -1
  %before = load i8, ptr %byte
  %without = and i8 %before, %others
  store i8 %without, ptr %byte
  %moved = call i32 @sched_setaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  store i8 %before, ptr %byte
  %restored = call i32 @sched_setaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  br label %done
done:
  ret void
}}
"""
