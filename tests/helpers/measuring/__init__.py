"""Scripts that measure what no benchmark does: `decoding_speed`, `other_changes` of images, and reports of fits (`report_again`)."""
