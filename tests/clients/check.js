// One line a check, which the runner counts; a failed one does not keep the others from running.

export async function check(title, body) {
  try {
    await body();
    console.log(`ok ${title}`);
  } catch (error) {
    console.log(`FAILED ${title}: ${describe(error)}`);
    process.exitCode = 1;
  }
}

function describe(error) {
  const causes = [];
  for (let at = error; at && causes.length < 4; at = at.cause) {
    causes.push(at.message ?? JSON.stringify(at));
  }
  return causes.join(" <- ").replace(/\s+/g, " ");
}
