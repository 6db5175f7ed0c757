# Runs a compiler command and fails when ptxas says that it serialized wgmma: the kernel would be right and slow.
log=$(mktemp)
"$@" >"$log" 2>&1
status=$?
cat "$log"
if grep -Eq 'C751[0-5]' "$log"; then
  echo "ptxas serialized wgmma instructions (see above): give the kernel more registers or keep accumulators untouched between wgmma and its wait." >&2
  status=1
fi
rm -f "$log"
exit $status
