"""Reports: what every output directory says of itself."""

from mllmtool.reports.report import Artifact, Report, file_sha256, read_report, write_report

__all__ = ["Artifact", "Report", "file_sha256", "read_report", "write_report"]
