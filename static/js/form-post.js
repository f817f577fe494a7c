// A response parameter named "submit" would hide the form's own method, hence the prototype's.
HTMLFormElement.prototype.submit.call(document.forms[0]);
