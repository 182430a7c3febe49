"""What the cluster of the tests is told in its slurm.conf."""

from __future__ import annotations

CONFIGURATION = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# How long a requeued job is held back, too; 5 seconds is the least.
AuthInfo=socket={state}/munge/socket,cred_expire=5
StateSaveLocation={state}/controller
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/run/slurmctld.pid
SlurmdPidFile={state}/run/slurmd-%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
{limits}
SwitchType=switch/none
MpiDefault=none
JobContainerType=job_container/none
# No accounting, as on many small clusters; finished jobs stay known for an hour.
AccountingStorageType=accounting_storage/none
MinJobAge=3600
JobCompType=jobcomp/filetxt
JobCompLoc={state}/log/jobs.txt
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0,sched_min_interval=0,nohold_on_prolog_fail
PriorityType=priority/basic
MaxArraySize={max_array}
MaxJobCount=20000
SlurmctldTimeout=30
SlurmdTimeout=5
ReturnToService=2
KillWait=3
MessageTimeout=10
WaitTime=0
JobRequeue=1
# Virtual nodes may claim more processors and memory than the machine has.
SlurmdParameters=config_overrides
"""
POLLED = """
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
"""
KERNEL = """
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
"""
